// A pool of system threads that runs passes, one at a time.
#pragma once

#include "levels.h"

struct pool;

// Starts `threads` threads, or as many as the system allows. `completed` is called with `context` at the end of each
// pass, on a thread of the pool. NULL when there is no memory or not a single thread.
struct pool* pool_create(uint32_t threads, const struct level* level, void (*completed)(void* context), void* context);

// How many threads the pool really has.
uint32_t pool_threads(const struct pool* pool);

// Begins a pass; 0 while another is in flight. Its memory must stay until `completed` is called.
int pool_run(struct pool* pool, struct pass* pass);

// Makes a pass in flight end with PASS_STOPPED before its next record and waits until it has, ends the threads, frees
// the pool.
void pool_destroy(struct pool* pool);
