// The thread of a process that calls MPI: jobs, in the order in which they are given, so that MPI need not be safe for threads
// (MPI_THREAD_FUNNELED). It knows nothing of JavaScript.

#include "group.h"

#include <mpi.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../start_thread.h"

// There is one in a process.
static struct {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  pthread_t thread;
  void (*done)(struct job*);
  int joined;                // by an environment; under the lock
  struct job *first, *last;  // that wait; under the lock
  int ending;                // the environment ends; atomic
  int aborting;              // all ranks are to end; atomic
  int rank, size;
  float* staging;
  size_t staging_length;
} group = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

_Static_assert(sizeof((struct job*)0)->error >= MPI_MAX_ERROR_STRING, "what MPI says may be longer");

// MPI counts in int; pieces stay below that.
static const size_t most_at_once = (size_t)1 << 29;

// After some looks at a request the thread sleeps between looks: others may take minutes, such as the first rank when it saves, and
// while gradients are added up others are computed on the same cores.
enum { eager_looks = 50, nap_nanoseconds = 20000 };

static int is_set(const int* flag) { return __atomic_load_n(flag, __ATOMIC_ACQUIRE); }

static void abort_if_asked(void) {
  if (is_set(&group.aborting)) MPI_Abort(MPI_COMM_WORLD, 1);
}

// Waits for a request. Progress of many implementations is made by looking.
static int finish(MPI_Request* request) {
  for (uint64_t looks = 0;; looks++) {
    int done = 0;
    int status = MPI_Test(request, &done, MPI_STATUS_IGNORE);
    if (status != MPI_SUCCESS || done) return status;
    abort_if_asked();
    if (is_set(&group.ending)) return MPI_ERR_OTHER;
    if (looks >= eager_looks) nanosleep(&(struct timespec){0, nap_nanoseconds}, NULL);
  }
}

static int sum_in_place(void* data, size_t length, MPI_Datatype type, size_t size) {
  int status = MPI_SUCCESS;
  for (size_t at = 0; at < length && status == MPI_SUCCESS; at += most_at_once) {
    int count = (int)(length - at < most_at_once ? length - at : most_at_once);
    MPI_Request request;
    status = MPI_Iallreduce(MPI_IN_PLACE, (char*)data + at * size, count, type, MPI_SUM, MPI_COMM_WORLD, &request);
    if (status == MPI_SUCCESS) status = finish(&request);
  }
  return status;
}

static int broadcast(char* data, size_t length, int root) {
  int status = MPI_SUCCESS;
  for (size_t at = 0; at < length && status == MPI_SUCCESS; at += most_at_once) {
    int count = (int)(length - at < most_at_once ? length - at : most_at_once);
    MPI_Request request;
    status = MPI_Ibcast(data + at, count, MPI_BYTE, root, MPI_COMM_WORLD, &request);
    if (status == MPI_SUCCESS) status = finish(&request);
  }
  return status;
}

// Many small arrays are one message: they are put together, and back.
static int sum_floats(const struct job* job) {
  if (job->range_count == 1) return sum_in_place(job->ranges[0].data, job->ranges[0].length, MPI_FLOAT, sizeof(float));
  size_t total = 0;
  for (uint32_t i = 0; i < job->range_count; i++) total += job->ranges[i].length;
  if (total > group.staging_length) {
    free(group.staging);
    group.staging = malloc(total * sizeof(float));
    group.staging_length = group.staging ? total : 0;
    if (!group.staging) return MPI_ERR_NO_MEM;
  }
  float* at = group.staging;
  for (uint32_t i = 0; i < job->range_count; at += job->ranges[i++].length) {
    memcpy(at, job->ranges[i].data, job->ranges[i].length * sizeof(float));
  }
  int status = sum_in_place(group.staging, total, MPI_FLOAT, sizeof(float));
  if (status != MPI_SUCCESS) return status;
  at = group.staging;
  for (uint32_t i = 0; i < job->range_count; at += job->ranges[i++].length) {
    memcpy(job->ranges[i].data, at, job->ranges[i].length * sizeof(float));
  }
  return status;
}

static int join(void) {
  int provided = 0;
  int status = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
  if (status != MPI_SUCCESS) return status;
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  status = MPI_Comm_rank(MPI_COMM_WORLD, &group.rank);
  return status == MPI_SUCCESS ? MPI_Comm_size(MPI_COMM_WORLD, &group.size) : status;
}

static int run(struct job* job) {
  switch (job->kind) {
    case JOIN: return join();
    case SUM_FLOATS: return sum_floats(job);
    case SUM_DOUBLES: return sum_in_place(job->ranges[0].data, job->ranges[0].length, MPI_DOUBLE, sizeof(double));
    case BROADCAST: return broadcast(job->ranges[0].data, job->ranges[0].length, job->root);
    case LEAVE: return MPI_Finalize();
  }
  return MPI_ERR_OTHER;
}

static struct job* next_job(void) {
  pthread_mutex_lock(&group.lock);
  while (!group.first && !is_set(&group.ending) && !is_set(&group.aborting)) {
    pthread_cond_wait(&group.changed, &group.lock);
  }
  struct job* job = is_set(&group.ending) || is_set(&group.aborting) ? NULL : group.first;
  if (job) group.first = job->next;
  pthread_mutex_unlock(&group.lock);
  return job;
}

static void* work(void* argument) {
  (void)argument;
  for (struct job* job; (job = next_job());) {
    int status = run(job);
    int length = 0;
    if (status != MPI_SUCCESS && MPI_Error_string(status, job->error, &length) != MPI_SUCCESS) {
      snprintf(job->error, sizeof job->error, "error %d", status);
    }
    group.done(job);
  }
  abort_if_asked();
  return NULL;
}

static void raise_flag(int* flag) {
  pthread_mutex_lock(&group.lock);
  __atomic_store_n(flag, 1, __ATOMIC_RELEASE);
  pthread_cond_signal(&group.changed);
  pthread_mutex_unlock(&group.lock);
}

int claim_group(void) {
  pthread_mutex_lock(&group.lock);
  int was_joined = group.joined;
  group.joined = 1;
  pthread_mutex_unlock(&group.lock);
  return !was_joined;
}

int start_group(void (*done)(struct job*)) {
  group.done = done;
  return start_thread(&group.thread, NULL, work, NULL);
}

void give_to_group(struct job* job) {
  pthread_mutex_lock(&group.lock);
  if (group.first) group.last->next = job;
  else group.first = job;
  group.last = job;
  pthread_cond_signal(&group.changed);
  pthread_mutex_unlock(&group.lock);
}

void end_group(void) {
  raise_flag(&group.ending);
  pthread_join(group.thread, NULL);
}

void abort_group(void) { raise_flag(&group.aborting); }

int group_rank(void) { return group.rank; }

int group_size(void) { return group.size; }
