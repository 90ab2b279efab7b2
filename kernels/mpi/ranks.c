// MPI as JavaScript sees it: an addon for Node that is compiled by mpicc on first use (src/training/mpi-library.ts). All calls of
// MPI are made by one thread, in the order in which JavaScript asks for them, so that nothing blocks the event loop and MPI need
// not be safe for threads (MPI_THREAD_FUNNELED). A process can join its ranks once.

#if defined(RWKV_OFFICIAL_NODE_API)
#include <node_api.h>
#else
#include "../node_api_subset.h"
#endif

#include <mpi.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../node_values.h"
#include "../start_thread.h"

enum kind { JOIN, SUM_FLOATS, SUM_DOUBLES, BROADCAST, LEAVE };

// Memory that a job works on.
struct range {
  void* data;
  size_t length;  // in elements
};

// What JavaScript has asked for.
struct job {
  struct job* next;
  enum kind kind;
  int root;
  napi_deferred deferred;
  napi_ref owner;  // of the memory, until the job is done
  char error[MPI_MAX_ERROR_STRING + 64];  // empty where there was none
  uint32_t range_count;
  struct range ranges[];
};

// There is one in a process.
static struct {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  pthread_t thread;
  int joined;                // by an environment; under the lock
  struct job *first, *last;  // that wait; under the lock
  int ending;                // the environment ends; atomic
  int aborting;              // all ranks are to end; atomic
  int rank, size;
  float* staging;
  size_t staging_length;
  uint32_t in_flight;  // on the environment's thread
  napi_threadsafe_function completed;
} group = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

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
    napi_call_threadsafe_function(group.completed, job, napi_tsfn_nonblocking);
  }
  abort_if_asked();
  return NULL;
}

// On the environment's thread; without `env` when the environment is ending.
static void settle(napi_env env, napi_value function, void* context, void* data) {
  (void)function, (void)context;
  struct job* job = data;
  if (env) {
    if (--group.in_flight == 0) napi_unref_threadsafe_function(env, group.completed);
    if (job->owner) napi_delete_reference(env, job->owner);
    napi_value message = NULL, error = NULL;
    if (!job->error[0]) napi_resolve_deferred(env, job->deferred, undefined(env));
    else if (napi_create_string_utf8(env, job->error, NAPI_AUTO_LENGTH, &message) == napi_ok &&
             napi_create_error(env, NULL, message, &error) == napi_ok) {
      napi_reject_deferred(env, job->deferred, error);
    }
  }
  free(job);
}

static struct job* new_job(enum kind kind, uint32_t range_count) {
  struct job* job = calloc(1, sizeof *job + range_count * sizeof(struct range));
  if (!job) return NULL;
  job->kind = kind;
  job->range_count = range_count;
  return job;
}

// Gives a job to the thread: a promise for its end. The owner of its memory is kept alive until then.
static napi_value begin(napi_env env, struct job* job, napi_value owner) {
  napi_value promise = NULL;
  if (owner && napi_create_reference(env, owner, 1, &job->owner) != napi_ok) {
    free(job);
    return fail(env, "expected memory that can be kept");
  }
  if (napi_create_promise(env, &job->deferred, &promise) != napi_ok) {
    if (job->owner) napi_delete_reference(env, job->owner);
    free(job);
    return fail(env, "no promise can be made");
  }
  if (group.in_flight++ == 0) napi_ref_threadsafe_function(env, group.completed);
  pthread_mutex_lock(&group.lock);
  if (group.first) group.last->next = job;
  else group.first = job;
  group.last = job;
  pthread_cond_signal(&group.changed);
  pthread_mutex_unlock(&group.lock);
  return promise;
}

static void arguments_of(napi_env env, napi_callback_info info, napi_value arguments[2]) {
  size_t count = 2;
  arguments[0] = arguments[1] = NULL;
  napi_get_cb_info(env, info, &count, arguments, NULL, NULL);
}

static int range_of(napi_env env, napi_value array, napi_typedarray_type wanted, struct range* range) {
  napi_typedarray_type type;
  return napi_get_typedarray_info(env, array, &type, &range->length, &range->data, NULL, NULL) == napi_ok && type == wanted;
}

static void raise_flag(int* flag) {
  pthread_mutex_lock(&group.lock);
  __atomic_store_n(flag, 1, __ATOMIC_RELEASE);
  pthread_cond_signal(&group.changed);
  pthread_mutex_unlock(&group.lock);
}

// The environment ends: the thread leaves what it does before any memory goes.
static void end_environment(void* data) {
  (void)data;
  raise_flag(&group.ending);
  pthread_join(group.thread, NULL);
}

// join(): joins the ranks that were started together. A promise.
static napi_value js_join(napi_env env, napi_callback_info info) {
  (void)info;
  pthread_mutex_lock(&group.lock);
  int was_joined = group.joined;
  group.joined = 1;
  pthread_mutex_unlock(&group.lock);
  if (was_joined) return fail(env, "this process has joined its ranks before");
  napi_value name;
  struct job* job = new_job(JOIN, 0);
  if (!job || napi_create_string_utf8(env, "rwkv ranks", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_threadsafe_function(env, NULL, NULL, name, 0, 1, NULL, NULL, NULL, settle, &group.completed) != napi_ok) {
    free(job);
    return fail(env, "not enough memory");
  }
  napi_unref_threadsafe_function(env, group.completed);
  if (!start_thread(&group.thread, NULL, work, NULL)) {
    free(job);
    return fail(env, "the system refuses to start a thread");
  }
  // Hooks run last first, so this one comes before the one that closes the function above.
  napi_add_env_cleanup_hook(env, end_environment, NULL);
  return begin(env, job, NULL);
}

static napi_value js_rank(napi_env env, napi_callback_info info) {
  (void)info;
  return number(env, group.rank);
}

static napi_value js_size(napi_env env, napi_callback_info info) {
  (void)info;
  return number(env, group.size);
}

// sumFloats(arrays): adds up an array of Float32Arrays over all ranks, in place. A promise.
static napi_value js_sum_floats(napi_env env, napi_callback_info info) {
  napi_value arguments[2], element;
  arguments_of(env, info, arguments);
  uint32_t count = 0;
  if (napi_get_array_length(env, arguments[0], &count) != napi_ok || count == 0) return fail(env, "expected arrays of floats");
  struct job* job = new_job(SUM_FLOATS, count);
  if (!job) return fail(env, "not enough memory");
  for (uint32_t i = 0; i < count; i++) {
    if (napi_get_element(env, arguments[0], i, &element) != napi_ok ||
        !range_of(env, element, napi_float32_array, &job->ranges[i])) {
      free(job);
      return fail(env, "expected arrays of floats");
    }
  }
  return begin(env, job, arguments[0]);
}

// sumDoubles(array): adds up a Float64Array over all ranks, in place. A promise.
static napi_value js_sum_doubles(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  arguments_of(env, info, arguments);
  struct job* job = new_job(SUM_DOUBLES, 1);
  if (!job) return fail(env, "not enough memory");
  if (range_of(env, arguments[0], napi_float64_array, &job->ranges[0])) return begin(env, job, arguments[0]);
  free(job);
  return fail(env, "expected an array of doubles");
}

// broadcast(bytes, root): copies a Uint8Array of one rank into those of all others. A promise.
static napi_value js_broadcast(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  arguments_of(env, info, arguments);
  double root = -1;
  struct job* job = new_job(BROADCAST, 1);
  if (!job) return fail(env, "not enough memory");
  if (range_of(env, arguments[0], napi_uint8_array, &job->ranges[0]) &&
      napi_get_value_double(env, arguments[1], &root) == napi_ok && root >= 0 && root < group.size) {
    job->root = (int)root;
    return begin(env, job, arguments[0]);
  }
  free(job);
  return fail(env, "expected bytes and a rank");
}

// leave(): waits until all ranks leave. Nothing can be asked for afterwards. A promise.
static napi_value js_leave(napi_env env, napi_callback_info info) {
  (void)info;
  struct job* job = new_job(LEAVE, 0);
  return job ? begin(env, job, NULL) : fail(env, "not enough memory");
}

// abort(): ends the processes of all ranks, this one too, as soon as the thread comes to it.
static napi_value js_abort(napi_env env, napi_callback_info info) {
  (void)info;
  raise_flag(&group.aborting);
  return undefined(env);
}

static const struct {
  const char* name;
  napi_callback function;
} functions[] = {
    {"join", js_join},           {"rank", js_rank},   {"size", js_size},   {"sumFloats", js_sum_floats}, {"sumDoubles", js_sum_doubles},
    {"broadcast", js_broadcast}, {"leave", js_leave}, {"abort", js_abort},
};

NAPI_MODULE_INIT() {
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
    napi_value function;
    if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].function, NULL, &function) != napi_ok ||
        napi_set_named_property(env, exports, functions[i].name, function) != napi_ok) {
      return fail(env, "the functions of the addon cannot be made");
    }
  }
  return exports;
}
