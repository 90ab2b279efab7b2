#include "pool.h"

#include <stdlib.h>

#include "start_thread.h"
#include "threads.h"

// Kernels keep blocks of matrices on the stack, and the default size is 128 KiB on some systems.
enum { stack_size = 1 << 21 };

struct pool {
  const struct level* level;
  void (*completed)(void* context);
  void* context;
  uint32_t threads;
  pthread_t* handles;
  pthread_mutex_t lock;
  struct pass* pass;     // in flight, else NULL; under the lock
  uint32_t completions;  // one more whenever a pass is no longer in flight; under the lock
  uint32_t completion_sleepers;
  uint32_t generation;   // one more for every pass, and at the end
  uint32_t sleepers;
  uint32_t finished;    // threads but the first that are done with this pass
  uint32_t finish_sleepers;
  uint32_t ending;
};

struct worker {
  struct pool* pool;
  uint32_t thread;
};

// The first thread also waits for the others and reports that the pass is done.
static void complete_pass(struct pool* pool, uint32_t others) {
  for (uint32_t finished; (finished = __atomic_load_n(&pool->finished, __ATOMIC_ACQUIRE)) != others;) {
    wait_for_change(&pool->finished, finished, &pool->finish_sleepers, spins_in_pass);
  }
  pthread_mutex_lock(&pool->lock);
  pool->pass = NULL;
  change_and_wake(&pool->completions, &pool->completion_sleepers);
  pthread_mutex_unlock(&pool->lock);
  pool->completed(pool->context);
}

static void* work(void* argument) {
  struct worker worker = *(struct worker*)argument;
  struct pool* pool = worker.pool;
  free(argument);
  for (uint32_t generation = 0;; generation++) {
    // Between passes the first thread leaves its core to the caller, who then has something to do.
    wait_for_change(&pool->generation, generation, &pool->sleepers, worker.thread == 0 ? 0 : spins_between_passes);
    if (__atomic_load_n(&pool->ending, __ATOMIC_ACQUIRE)) return NULL;
    struct pass* pass = pool->pass;
    uint32_t others = pass->thread_count - 1;
    pool->level->run_pass(pass, worker.thread);
    if (worker.thread == 0) complete_pass(pool, others);
    else change_and_wake(&pool->finished, &pool->finish_sleepers);
  }
}

static int start_worker(struct pool* pool, uint32_t thread, const pthread_attr_t* attributes) {
  struct worker* worker = malloc(sizeof *worker);
  if (!worker) return 0;
  *worker = (struct worker){pool, thread};
  if (start_thread(&pool->handles[thread], attributes, work, worker)) return 1;
  free(worker);
  return 0;
}

struct pool* pool_create(uint32_t threads, const struct level* level, void (*completed)(void* context), void* context) {
  struct pool* pool = calloc(1, sizeof *pool);
  pthread_t* handles = calloc(threads, sizeof *handles);
  pthread_attr_t attributes;
  if (!pool || !handles || pthread_attr_init(&attributes) != 0) {
    free(pool);
    free(handles);
    return NULL;
  }
  pool->level = level;
  pool->completed = completed;
  pool->context = context;
  pool->handles = handles;
  pthread_mutex_init(&pool->lock, NULL);
  pthread_attr_setstacksize(&attributes, stack_size);
  while (pool->threads < threads && start_worker(pool, pool->threads, &attributes)) pool->threads++;
  pthread_attr_destroy(&attributes);
  if (pool->threads > 0) return pool;
  pool_destroy(pool);
  return NULL;
}

uint32_t pool_threads(const struct pool* pool) { return pool->threads; }

int pool_run(struct pool* pool, struct pass* pass) {
  pthread_mutex_lock(&pool->lock);
  int idle = pool->pass == NULL;
  if (idle) pool->pass = pass;
  pthread_mutex_unlock(&pool->lock);
  if (!idle) return 0;
  pass->thread_count = pool->threads;
  pass->has_tiles = (uint32_t)pool->level->has_tiles;
  __atomic_store_n(&pool->finished, 0, __ATOMIC_RELEASE);
  change_and_wake(&pool->generation, &pool->sleepers);
  return 1;
}

// The threads may be anywhere in the pass: those at a barrier are let go, the others see the status before their next
// record.
static void stop_pass(struct pass* pass) {
  uint32_t running = PASS_COMPLETE;
  __atomic_compare_exchange_n(&pass->status, &running, PASS_STOPPED, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
  change_and_wake(&pass->barrier.generation, &pass->barrier.sleepers);
}

void pool_destroy(struct pool* pool) {
  pthread_mutex_lock(&pool->lock);
  int running = pool->pass != NULL;
  uint32_t completions = pool->completions;
  if (running) stop_pass(pool->pass);
  pthread_mutex_unlock(&pool->lock);
  if (running) wait_for_change(&pool->completions, completions, &pool->completion_sleepers, 0);
  __atomic_store_n(&pool->ending, 1, __ATOMIC_RELEASE);
  change_and_wake(&pool->generation, &pool->sleepers);
  for (uint32_t thread = 0; thread < pool->threads; thread++) pthread_join(pool->handles[thread], NULL);
  pthread_mutex_destroy(&pool->lock);
  free(pool->handles);
  free(pool);
}
