// How system threads sleep until a word of memory changes: futexes on Linux, elsewhere a mutex and a condition for
// every few words. RWKV_PORTABLE_WAITING takes the latter on Linux too, for tests.

#include <stdint.h>

#include "threads.h"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(__linux__) && defined(SYS_futex) && !defined(RWKV_PORTABLE_WAITING)

// As in linux/futex.h, which not every system with a compiler has.
enum { futex_wait_private = 128, futex_wake_private = 129 };

void sleep_while(uint32_t* word, uint32_t value) { syscall(SYS_futex, word, futex_wait_private, value, 0, 0, 0); }
void wake_all(uint32_t* word) { syscall(SYS_futex, word, futex_wake_private, 0x7fffffff, 0, 0, 0); }

#else

#include <pthread.h>

struct bed {
  pthread_mutex_t lock;
  pthread_cond_t woken;
};

#define BED {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER}
static struct bed beds[] = {BED, BED, BED, BED, BED, BED, BED, BED};

// Words that share a bed wake each other's sleepers, who look at their own word and sleep again.
static struct bed* bed_of(const uint32_t* word) {
  return &beds[((uintptr_t)word >> 6) % (sizeof beds / sizeof beds[0])];
}

void sleep_while(uint32_t* word, uint32_t value) {
  struct bed* bed = bed_of(word);
  pthread_mutex_lock(&bed->lock);
  while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == value) pthread_cond_wait(&bed->woken, &bed->lock);
  pthread_mutex_unlock(&bed->lock);
}

void wake_all(uint32_t* word) {
  struct bed* bed = bed_of(word);
  pthread_mutex_lock(&bed->lock);
  pthread_cond_broadcast(&bed->woken);
  pthread_mutex_unlock(&bed->lock);
}

#endif
