// MPI as JavaScript sees it: an addon for Node that is compiled by mpicc on first use (src/training/mpi-library.ts). All calls of
// MPI are made by one thread (group.c), in the order in which JavaScript asks for them, so that nothing blocks the event loop.

#if defined(RWKV_OFFICIAL_NODE_API)
#include <node_api.h>
#else
#include "../node_api_subset.h"
#endif

#include <stdlib.h>

#include "../node_values.h"
#include "group.h"

// What JavaScript has asked for: a job, behind which are its ranges.
struct request {
  struct job job;  // the first, so that one is the other
  napi_deferred deferred;
  napi_ref owner;  // of the memory, until the job is done
  struct range ranges[];
};

static napi_threadsafe_function completed;
static uint32_t in_flight;  // on the environment's thread

static void complete(struct job* job) { napi_call_threadsafe_function(completed, job, napi_tsfn_nonblocking); }

// On the environment's thread; without `env` when the environment is ending.
static void settle(napi_env env, napi_value function, void* context, void* data) {
  (void)function, (void)context;
  struct request* request = data;
  if (env) {
    if (--in_flight == 0) napi_unref_threadsafe_function(env, completed);
    if (request->owner) napi_delete_reference(env, request->owner);
    napi_value message = NULL, error = NULL;
    if (!request->job.error[0]) napi_resolve_deferred(env, request->deferred, undefined(env));
    else if (napi_create_string_utf8(env, request->job.error, NAPI_AUTO_LENGTH, &message) == napi_ok &&
             napi_create_error(env, NULL, message, &error) == napi_ok) {
      napi_reject_deferred(env, request->deferred, error);
    }
  }
  free(request);
}

static struct request* new_request(enum kind kind, uint32_t range_count) {
  struct request* request = calloc(1, sizeof *request + range_count * sizeof(struct range));
  if (!request) return NULL;
  request->job.kind = kind;
  request->job.range_count = range_count;
  request->job.ranges = request->ranges;
  return request;
}

// Gives a job to the thread: a promise for its end. The owner of its memory is kept alive until then.
static napi_value begin(napi_env env, struct request* request, napi_value owner) {
  napi_value promise = NULL;
  if (owner && napi_create_reference(env, owner, 1, &request->owner) != napi_ok) {
    free(request);
    return fail(env, "expected memory that can be kept");
  }
  if (napi_create_promise(env, &request->deferred, &promise) != napi_ok) {
    if (request->owner) napi_delete_reference(env, request->owner);
    free(request);
    return fail(env, "no promise can be made");
  }
  if (in_flight++ == 0) napi_ref_threadsafe_function(env, completed);
  give_to_group(&request->job);
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

// The environment ends: the thread leaves what it does before any memory goes.
static void end_environment(void* data) {
  (void)data;
  end_group();
}

// join(): joins the ranks that were started together. A promise.
static napi_value js_join(napi_env env, napi_callback_info info) {
  (void)info;
  if (!claim_group()) return fail(env, "this process has joined its ranks before");
  napi_value name;
  struct request* request = new_request(JOIN, 0);
  if (!request || napi_create_string_utf8(env, "rwkv ranks", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_threadsafe_function(env, NULL, NULL, name, 0, 1, NULL, NULL, NULL, settle, &completed) != napi_ok) {
    free(request);
    return fail(env, "not enough memory");
  }
  napi_unref_threadsafe_function(env, completed);
  if (!start_group(complete)) {
    free(request);
    return fail(env, "the system refuses to start a thread");
  }
  // Hooks run last first, so this one comes before the one that closes the function above.
  napi_add_env_cleanup_hook(env, end_environment, NULL);
  return begin(env, request, NULL);
}

static napi_value js_rank(napi_env env, napi_callback_info info) {
  (void)info;
  return number(env, group_rank());
}

static napi_value js_size(napi_env env, napi_callback_info info) {
  (void)info;
  return number(env, group_size());
}

// sumFloats(arrays): adds up an array of Float32Arrays over all ranks, in place. A promise.
static napi_value js_sum_floats(napi_env env, napi_callback_info info) {
  napi_value arguments[2], element;
  arguments_of(env, info, arguments);
  uint32_t count = 0;
  if (napi_get_array_length(env, arguments[0], &count) != napi_ok || count == 0) return fail(env, "expected arrays of floats");
  struct request* request = new_request(SUM_FLOATS, count);
  if (!request) return fail(env, "not enough memory");
  for (uint32_t i = 0; i < count; i++) {
    if (napi_get_element(env, arguments[0], i, &element) != napi_ok ||
        !range_of(env, element, napi_float32_array, &request->ranges[i])) {
      free(request);
      return fail(env, "expected arrays of floats");
    }
  }
  return begin(env, request, arguments[0]);
}

// sumDoubles(array): adds up a Float64Array over all ranks, in place. A promise.
static napi_value js_sum_doubles(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  arguments_of(env, info, arguments);
  struct request* request = new_request(SUM_DOUBLES, 1);
  if (!request) return fail(env, "not enough memory");
  if (range_of(env, arguments[0], napi_float64_array, &request->ranges[0])) return begin(env, request, arguments[0]);
  free(request);
  return fail(env, "expected an array of doubles");
}

// broadcast(bytes, root): copies a Uint8Array of one rank into those of all others. A promise.
static napi_value js_broadcast(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  arguments_of(env, info, arguments);
  double root = -1;
  struct request* request = new_request(BROADCAST, 1);
  if (!request) return fail(env, "not enough memory");
  if (range_of(env, arguments[0], napi_uint8_array, &request->ranges[0]) &&
      napi_get_value_double(env, arguments[1], &root) == napi_ok && root >= 0 && root < group_size()) {
    request->job.root = (int)root;
    return begin(env, request, arguments[0]);
  }
  free(request);
  return fail(env, "expected bytes and a rank");
}

// leave(): waits until all ranks leave. Nothing can be asked for afterwards. A promise.
static napi_value js_leave(napi_env env, napi_callback_info info) {
  (void)info;
  struct request* request = new_request(LEAVE, 0);
  return request ? begin(env, request, NULL) : fail(env, "not enough memory");
}

// abort(): ends the processes of all ranks, this one too, as soon as the thread comes to it.
static napi_value js_abort(napi_env env, napi_callback_info info) {
  (void)info;
  abort_group();
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
