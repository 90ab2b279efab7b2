// A barrier for the threads of a pass: spins, since most waits are under a microsecond, then sleeps, since a core may be
// shared with other work.
#pragma once

#include "plan.h"

#if defined(__wasm__) && !defined(__wasm_atomics__)

// The build for one thread: nobody waits.
static inline void pause_briefly(void) {}
static inline void yield_processor(void) {}
static inline void sleep_while(uint32_t* word, uint32_t value) { (void)word, (void)value; }
static inline void wake_all(uint32_t* word) { (void)word; }

#elif defined(__wasm__)

static inline void pause_briefly(void) {}
static inline void yield_processor(void) {}
static inline void sleep_while(uint32_t* word, uint32_t value) {
  __builtin_wasm_memory_atomic_wait32((int*)word, (int)value, -1);
}
static inline void wake_all(uint32_t* word) { __builtin_wasm_memory_atomic_notify((int*)word, 0xffffffff); }

#else

#include <sched.h>

// In waiting.c, once in the library: the threads that sleep and those that wake them may be in different levels of it.
void sleep_while(uint32_t* word, uint32_t value);
void wake_all(uint32_t* word);

static inline void yield_processor(void) { sched_yield(); }

#if defined(__x86_64__) || defined(__i386__)
static inline void pause_briefly(void) { __builtin_ia32_pause(); }
#elif defined(__aarch64__)
static inline void pause_briefly(void) { __asm__ volatile("yield"); }
#else
static inline void pause_briefly(void) {}
#endif

#endif

// How often a word is looked at before a thread sleeps. On virtual machines it takes up to 0.3 ms to wake one, so within a pass
// it is better to wait about that long, and between passes, while the next token is on its way, somewhat longer: a few
// milliseconds. Then an idle model takes no time of a processor. Meanwhile a waiting thread offers its core now and then: the
// system may have put the thread that it waits for behind it, for as long as its turn lasts, 3 ms.
enum { spins_between_yields = 50, spins_in_pass = 20000, spins_between_passes = 100000 };

// Waits until *word is no longer `value`; `sleepers` counts those that need waking.
static inline void wait_for_change(uint32_t* word, uint32_t value, uint32_t* sleepers, int spins) {
  for (int spin = 0; spin < spins; spin++) {
    if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != value) return;
    if (spin % spins_between_yields == spins_between_yields - 1) yield_processor();
    else pause_briefly();
  }
  __atomic_add_fetch(sleepers, 1, __ATOMIC_SEQ_CST);
  while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == value) sleep_while(word, value);
  __atomic_sub_fetch(sleepers, 1, __ATOMIC_SEQ_CST);
}

static inline void change_and_wake(uint32_t* word, uint32_t* sleepers) {
  __atomic_add_fetch(word, 1, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(sleepers, __ATOMIC_SEQ_CST) > 0) wake_all(word);
}

// Waits for the other threads of a pass; returns at once, or early, when the pass is to end (pool_stop_pass in pool.c).
static inline void barrier_wait(struct pass* pass) {
  if (pass->thread_count == 1) return;
  struct barrier* barrier = &pass->barrier;
  uint32_t generation = __atomic_load_n(&barrier->generation, __ATOMIC_ACQUIRE);
  // Whoever stops a pass first says so, then raises the generation; so a thread sees the one here or the other below.
  if (__atomic_load_n(&pass->status, __ATOMIC_RELAXED) != PASS_COMPLETE) return;
  if (__atomic_add_fetch(&barrier->arrived, 1, __ATOMIC_ACQ_REL) == pass->thread_count) {
    __atomic_store_n(&barrier->arrived, 0, __ATOMIC_RELAXED);
    change_and_wake(&barrier->generation, &barrier->sleepers);
  } else {
    wait_for_change(&barrier->generation, generation, &barrier->sleepers, spins_in_pass);
  }
}
