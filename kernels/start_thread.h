// Threads of the native library.
#pragma once

#include <pthread.h>

#if !defined(_WIN32)
#include <signal.h>
#endif

// Starts a thread; 0 where the system refuses. Signals are for the threads of the program that this is part of; a new thread
// inherits the mask.
static inline int start_thread(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument) {
#if defined(_WIN32)
  return pthread_create(thread, attributes, run, argument) == 0;
#else
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  int started = pthread_create(thread, attributes, run, argument) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return started;
#endif
}
