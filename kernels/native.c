// What only the native library has: the choice of an instruction level, a pool of threads, and files mapped into memory.

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plan.h"
#include "threads.h"

// Bumped when a signature or a structure changes, so that a library of another build is not taken for this one.
int32_t rwkv_interface_version(void) { return 5; }

#if defined(__x86_64__)
#define LEVELS(LEVEL)                                                                                              \
  LEVEL(sse4, __builtin_cpu_supports("sse4.1"))                                                                    \
  LEVEL(avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))                                     \
  LEVEL(avx512, __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&                        \
                    __builtin_cpu_supports("avx512dq"))                                                            \
  LEVEL(avx512vnni, __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&                    \
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni"))
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#define LEVELS(LEVEL) LEVEL(neon, 1) LEVEL(dotprod, (getauxval(AT_HWCAP) >> 20) & 1)
#elif defined(__aarch64__)
#define LEVELS(LEVEL) LEVEL(neon, 1) LEVEL(dotprod, 1)  // every processor of Apple's that runs this
#else
#define LEVELS(LEVEL) LEVEL(plain, 1)
#endif

#define DECLARE_LEVEL(name, supported)                       \
  void run_pass_##name(struct pass* pass, uint32_t thread); \
  uint32_t lane_count_##name(void);                               \
  static int has_##name(void) { return supported; }
LEVELS(DECLARE_LEVEL)

// The levels that this library was compiled for, lowest first.
#define LIST_LEVEL(name, supported) {#name, has_##name, run_pass_##name, lane_count_##name},
static const struct level {
  const char* name;
  int (*supported)(void);
  void (*run_pass)(struct pass* pass, uint32_t thread);
  uint32_t (*lanes)(void);
} levels[] = {LEVELS(LIST_LEVEL)};

// The number of the level that is called `name`, or of the highest one that this processor has where `name` is empty; -1 where
// it has not.
int32_t rwkv_find_level(const char* name) {
  for (int32_t i = sizeof levels / sizeof levels[0] - 1; i >= 0; i--) {
    if ((name[0] == 0 || strcmp(name, levels[i].name) == 0) && levels[i].supported()) return i;
  }
  return -1;
}

// Floats in a vector of a level.
uint32_t rwkv_level_lanes(int32_t level) { return levels[level].lanes(); }

struct pool {
  const struct level* level;
  struct pass* pass;
  uint32_t threads;
  uint32_t generation;  // one more for every pass
  uint32_t sleepers;
  uint32_t finished;  // workers done with this pass
  uint32_t finish_sleepers;
  uint32_t stopping;
  pthread_t* workers;
};

struct worker {
  struct pool* pool;
  uint32_t thread;
};

static void* work(void* argument) {
  struct worker worker = *(struct worker*)argument;
  struct pool* pool = worker.pool;
  free(argument);
  for (uint32_t generation = 0;; generation++) {
    wait_for_change(&pool->generation, generation, &pool->sleepers, spins_between_passes);
    if (__atomic_load_n(&pool->stopping, __ATOMIC_ACQUIRE)) return NULL;
    pool->level->run_pass(pool->pass, worker.thread);
    change_and_wake(&pool->finished, &pool->finish_sleepers);
  }
}

// Starts `threads` - 1 workers; the thread that runs a pass is the other one. 0 when the system refuses.
uint64_t rwkv_pool_create(uint32_t threads, int32_t level) {
  struct pool* pool = calloc(1, sizeof *pool);
  if (!pool) return 0;
  pool->level = &levels[level];
  pool->threads = 1;
  pool->workers = calloc(threads, sizeof *pool->workers);
  for (uint32_t thread = 1; pool->workers && thread < threads; thread++) {
    struct worker* worker = malloc(sizeof *worker);
    if (!worker) break;
    *worker = (struct worker){pool, thread};
    if (pthread_create(&pool->workers[thread], NULL, work, worker) != 0) {
      free(worker);
      break;
    }
    pool->threads = thread + 1;
  }
  return (uint64_t)(uintptr_t)pool;
}

// How many threads the pool really has.
uint32_t rwkv_pool_threads(uint64_t address) { return ((struct pool*)(uintptr_t)address)->threads; }

// Runs a pass on all threads and returns when it is done.
void rwkv_pool_run(uint64_t address, uint64_t pass_address) {
  struct pool* pool = (struct pool*)(uintptr_t)address;
  struct pass* pass = (struct pass*)(uintptr_t)pass_address;
  pass->thread_count = pool->threads;
  pool->pass = pass;
  __atomic_store_n(&pool->finished, 0, __ATOMIC_RELEASE);
  change_and_wake(&pool->generation, &pool->sleepers);
  pool->level->run_pass(pass, 0);
  for (;;) {
    uint32_t finished = __atomic_load_n(&pool->finished, __ATOMIC_ACQUIRE);
    if (finished == pool->threads - 1) return;
    wait_for_change(&pool->finished, finished, &pool->finish_sleepers, spins_in_pass);
  }
}

void rwkv_pool_destroy(uint64_t address) {
  struct pool* pool = (struct pool*)(uintptr_t)address;
  __atomic_store_n(&pool->stopping, 1, __ATOMIC_RELEASE);
  change_and_wake(&pool->generation, &pool->sleepers);
  for (uint32_t thread = 1; thread < pool->threads; thread++) pthread_join(pool->workers[thread], NULL);
  free(pool->workers);
  free(pool);
}

// Asks for huge pages under memory that has not been touched yet: fewer faults while it is filled, fewer misses of address
// translation while it is read.
void rwkv_use_huge_pages(uint64_t address, uint64_t size) {
#if defined(MADV_HUGEPAGE)
  const uint64_t page = 4096;
  uint64_t begin = (address + page - 1) / page * page, end = (address + size) / page * page;
  if (begin < end) madvise((void*)(uintptr_t)begin, end - begin, MADV_HUGEPAGE);
#else
  (void)address, (void)size;
#endif
}

// Maps a whole file for reading; 0 when it cannot be opened or is not `size` bytes long.
uint64_t rwkv_map_file(const char* path, uint64_t size) {
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  struct stat status;
  void* address = MAP_FAILED;
  if (fstat(file, &status) == 0 && (uint64_t)status.st_size == size && size > 0) {
    address = mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0);
  }
  close(file);
  return address == MAP_FAILED ? 0 : (uint64_t)(uintptr_t)address;
}

void rwkv_unmap_file(uint64_t address, uint64_t size) { munmap((void*)(uintptr_t)address, size); }
