// The pool of threads by itself, to be run under a thread sanitizer, which Node cannot: pools side by side, passes
// one after another, passes that are stopped, threads that sleep in between. Says "ok", or what went wrong.

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "pool.c"
#include "waiting.c"

void run_pass_plain(struct pass* pass, uint32_t thread);
uint32_t lane_count_plain(void);
static int supported(void) { return 1; }
static const struct level level = {"plain", supported, run_pass_plain, lane_count_plain};

#define EXPECT(condition)                                              \
  do {                                                                 \
    if (!(condition)) {                                                \
      fprintf(stderr, "line %d: expected %s\n", __LINE__, #condition); \
      exit(1);                                                         \
    }                                                                  \
  } while (0)

// What a caller waits on.
struct caller {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  uint32_t completed;
};

static void completed(void* context) {
  struct caller* caller = context;
  pthread_mutex_lock(&caller->lock);
  caller->completed++;
  pthread_cond_signal(&caller->changed);
  pthread_mutex_unlock(&caller->lock);
}

static void wait_for(struct caller* caller, uint32_t count) {
  pthread_mutex_lock(&caller->lock);
  while (caller->completed < count) pthread_cond_wait(&caller->changed, &caller->lock);
  pthread_mutex_unlock(&caller->lock);
}

enum { width = 256, record_count = 24, record_size = 192 };

// Numbers of elementwise functions.
#define FUNCTION(name, value) FUNCTION_##name,
enum {
#include "elementwise.def"
};
#undef FUNCTION

// A pass that doubles x `records` times, with a barrier after each record, in which every thread reads what others
// wrote.
struct work {
  struct pass pass;
  char* records;
  float x[width], y[width];
};

// result = from + from
static void write_doubling(struct record* record, const float* from, const float* to) {
  *record = (struct record){.size = record_size,
                            .kernel = KERNEL_elementwise,
                            .barrier_after = BARRIER_ALWAYS,
                            .row_set = ROWS_FIXED,
                            .rows = 1,
                            .width = width,
                            .program = sizeof *record + 2 * sizeof(uint64_t)};
  record->address[0] = (uint64_t)(uintptr_t)from;
  record->address[1] = (uint64_t)(uintptr_t)to;
  const uint32_t counts[] = {1, 1, 0, 0, 1}, input[] = {0, 1};
  const uint8_t instruction[] = {FUNCTION_add, 0, 0, 1};
  char* program = (char*)record + record->program;
  memcpy(program, counts, sizeof counts);
  memcpy(program + sizeof counts, input, sizeof input);
  memcpy(program + sizeof counts + sizeof input, instruction, sizeof instruction);
}

static void prepare(struct work* work, uint32_t records) {
  memset(work, 0, sizeof *work);
  work->records = calloc(records, record_size);
  for (uint32_t i = 0; i < records; i++) {
    float *from = i % 2 == 0 ? work->x : work->y, *to = i % 2 == 0 ? work->y : work->x;
    write_doubling((struct record*)(work->records + i * record_size), from, to);
  }
  work->pass.records = (uint64_t)(uintptr_t)work->records;
  work->pass.record_count = records;
}

static void run_passes(uint32_t threads, uint32_t passes, useconds_t pause) {
  struct caller caller = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
  struct pool* pool = pool_create(threads, &level, completed, &caller);
  EXPECT(pool && pool_threads(pool) == threads);
  struct work work;
  prepare(&work, record_count);
  for (uint32_t i = 0; i < passes; i++) {
    for (uint32_t c = 0; c < width; c++) work.x[c] = (float)(c + i);
    EXPECT(pool_run(pool, &work.pass));
    wait_for(&caller, i + 1);
    EXPECT(work.pass.status == PASS_COMPLETE);
    for (uint32_t c = 0; c < width; c++) EXPECT(work.x[c] == (float)(c + i) * (1 << record_count));
    if (pause) usleep(pause);
  }
  pool_destroy(pool);
  free(work.records);
}

// Ends a pool while a pass is in flight, at some moment or other.
static void stop_passes(uint32_t threads, uint32_t times) {
  for (uint32_t i = 0; i < times; i++) {
    struct caller caller = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
    struct pool* pool = pool_create(threads, &level, completed, &caller);
    EXPECT(pool);
    struct work work;
    prepare(&work, 3000);
    EXPECT(pool_run(pool, &work.pass));
    usleep(i * 37 % 2000);
    pool_destroy(pool);
    EXPECT(caller.completed >= 1);
    EXPECT(work.pass.status == PASS_STOPPED || work.pass.status == PASS_COMPLETE);
    free(work.records);
  }
}

// A wrong index is found by every thread, and the next pass runs.
static void refuse_indices(void) {
  struct caller caller = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
  struct pool* pool = pool_create(3, &level, completed, &caller);
  float table[2 * width] = {0}, out[2 * width];
  int32_t tokens[2] = {1, 2};
  _Alignas(struct record) char room[record_size] = {0};
  struct record* record = (struct record*)room;
  *record = (struct record){.size = record_size,
                            .kernel = KERNEL_embedding,
                            .barrier_after = BARRIER_ALWAYS,
                            .width = width,
                            .matrix_rows = 2};
  record->address[0] = (uint64_t)(uintptr_t)table;
  record->address[1] = (uint64_t)(uintptr_t)out;
  struct pass pass = {.records = (uint64_t)(uintptr_t)record,
                      .tokens = (uint64_t)(uintptr_t)tokens,
                      .record_count = 1,
                      .token_count = 2};
  for (uint32_t i = 0; i < 200; i++) {
    tokens[1] = i % 2 == 0 ? 2 : 1;
    pass.status = PASS_COMPLETE;
    EXPECT(pool_run(pool, &pass));
    wait_for(&caller, i + 1);
    EXPECT(pass.status == (i % 2 == 0 ? PASS_WRONG_TOKEN : PASS_COMPLETE));
  }
  pool_destroy(pool);
}

// Threads that wait for a pass take no time of a processor.
static void sleep_when_idle(void) {
  struct caller caller = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
  struct pool* pool = pool_create(4, &level, completed, &caller);
  usleep(300000);
  clock_t before = clock();
  usleep(500000);
  double used = (double)(clock() - before) / CLOCKS_PER_SEC;
  EXPECT(used < 0.2);
  pool_destroy(pool);
}

static void* use_pools(void* argument) {
  uint32_t threads = (uint32_t)(uintptr_t)argument;
  run_passes(threads, 300, 0);
  run_passes(threads, 20, 5000);
  stop_passes(threads, 30);
  return NULL;
}

int main(void) {
  sleep_when_idle();
  refuse_indices();
  pthread_t users[4];
  for (uintptr_t i = 0; i < 4; i++) EXPECT(pthread_create(&users[i], NULL, use_pools, (void*)(i + 1)) == 0);
  for (int i = 0; i < 4; i++) pthread_join(users[i], NULL);
  puts("ok");
  return 0;
}
