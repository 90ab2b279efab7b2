// The native library as JavaScript sees it: an addon for Node, once for each environment (the main thread, each
// worker). Pools and mappings are externals; a stale one is an error, not a crash. When an environment ends, however
// it ends, its cleanup hook stops the passes in flight and joins the threads before any memory goes.

#if defined(RWKV_OFFICIAL_NODE_API)
#include <node_api.h>
#else
#include "node_api_subset.h"
#endif

#include <stdlib.h>

#include "mapping.h"
#include "names.h"
#include "node_values.h"
#include "pool.h"

struct environment;

// What an external points to. It lives until its external is collected; what it stands for may be gone before.
struct handle {
  struct environment* environment;
  struct handle *previous, *next;
  struct pool* pool;
  struct mapping* mapping;
  // Of the pass in flight:
  int in_flight;
  int collected;
  napi_deferred deferred;
  napi_ref owner;
};

struct environment {
  uint32_t users;           // the cleanup hook and every handle
  struct handle* handles;
  uint32_t passes;          // in flight
  napi_threadsafe_function completed;
};

static void release_environment(struct environment* environment) {
  if (--environment->users == 0) free(environment);
}

static struct handle* add_handle(struct environment* environment) {
  struct handle* handle = calloc(1, sizeof *handle);
  if (!handle) return NULL;
  handle->environment = environment;
  handle->next = environment->handles;
  if (handle->next) handle->next->previous = handle;
  environment->handles = handle;
  environment->users++;
  return handle;
}

static void free_handle(struct handle* handle) {
  if (handle->previous) handle->previous->next = handle->next;
  else handle->environment->handles = handle->next;
  if (handle->next) handle->next->previous = handle->previous;
  release_environment(handle->environment);
  free(handle);
}

// Pools before mappings: their threads may be reading those.
static void destroy_pool(struct handle* handle) {
  if (handle->pool) pool_destroy(handle->pool);
  handle->pool = NULL;
}

static void destroy_mapping(struct handle* handle) {
  if (handle->mapping) mapping_destroy(handle->mapping);
  handle->mapping = NULL;
}

static void end_environment(void* data) {
  struct environment* environment = data;
  for (struct handle* handle = environment->handles; handle; handle = handle->next) destroy_pool(handle);
  for (struct handle* handle = environment->handles; handle; handle = handle->next) destroy_mapping(handle);
  release_environment(environment);
}

// The external was collected. A pass in flight keeps its owner alive, and so the external; only when an environment
// ends can both be.
static void finalize_handle(napi_env env, void* data, void* hint) {
  (void)env, (void)hint;
  struct handle* handle = data;
  destroy_pool(handle);
  destroy_mapping(handle);
  handle->collected = 1;
  if (!handle->in_flight) free_handle(handle);
}

struct call {
  struct environment* environment;
  napi_value arguments[4];
};

static struct call call_of(napi_env env, napi_callback_info info) {
  struct call call = {0};
  void* data = NULL;
  size_t count = sizeof call.arguments / sizeof call.arguments[0];
  napi_get_cb_info(env, info, &count, call.arguments, NULL, &data);
  call.environment = data;
  return call;
}

// JavaScript's numbers are exact up to here.
static const double largest_exact = 9007199254740991.0;

// A whole number from 0 to `limit`; -1 for anything else.
static double whole_number(napi_env env, napi_value value, double limit) {
  double result;
  if (napi_get_value_double(env, value, &result) != napi_ok) return -1;
  return result >= 0 && result <= limit && result == (double)(uint64_t)result ? result : -1;
}

// The handle of an external, if it is one of this environment's.
static struct handle* handle_of(napi_env env, const struct call* call) {
  void* data = NULL;
  if (napi_get_value_external(env, call->arguments[0], &data) != napi_ok) return NULL;
  for (struct handle* handle = call->environment->handles; handle; handle = handle->next) {
    if (handle == data) return handle;
  }
  return NULL;
}

static napi_value external_of(napi_env env, struct handle* handle) {
  napi_value external = NULL;
  if (napi_create_external(env, handle, finalize_handle, NULL, &external) == napi_ok) return external;
  destroy_pool(handle);
  destroy_mapping(handle);
  free_handle(handle);
  return fail(env, "not enough memory");
}

// findLevel(name): the number of the level of that name, or of the highest one for ""; -1 where the processor has it
// not.
static napi_value js_find_level(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  char name[32];
  if (napi_get_value_string_utf8(env, call.arguments[0], name, sizeof name, NULL) != napi_ok) {
    return fail(env, "expected a name");
  }
  return number(env, find_level(name));
}

// levelLanes(level): floats in a vector of its kernels.
static napi_value js_level_lanes(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  const struct level* level = level_at((int32_t)whole_number(env, call.arguments[0], 1000));
  return level ? number(env, level->lanes()) : fail(env, "no such level");
}

// On a thread of the pool. The function outlives the pool, whose threads are joined before the environment closes it.
static void pass_completed(void* context) {
  struct handle* handle = context;
  napi_call_threadsafe_function(handle->environment->completed, handle, napi_tsfn_nonblocking);
}

// On the environment's thread; without `env` when the environment is ending, and then its handles may be gone.
static void settle_pass(napi_env env, napi_value function, void* context, void* data) {
  (void)function, (void)context;
  if (!env) return;
  struct handle* handle = data;
  struct environment* environment = handle->environment;
  napi_deferred deferred = handle->deferred;
  handle->in_flight = 0;
  if (--environment->passes == 0) napi_unref_threadsafe_function(env, environment->completed);
  napi_delete_reference(env, handle->owner);
  if (handle->collected) free_handle(handle);
  napi_resolve_deferred(env, deferred, undefined(env));
}

// createPool(threads, level): an external.
static napi_value js_create_pool(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  double threads = whole_number(env, call.arguments[0], 4096);
  const struct level* level = level_at((int32_t)whole_number(env, call.arguments[1], 1000));
  if (threads < 1 || !level) return fail(env, "expected a number of threads and a level");
  struct handle* handle = add_handle(call.environment);
  if (!handle) return fail(env, "not enough memory");
  handle->pool = pool_create((uint32_t)threads, level, pass_completed, handle);
  if (handle->pool) return external_of(env, handle);
  free_handle(handle);
  return fail(env, "the system refuses to start a thread");
}

// poolThreads(pool)
static napi_value js_pool_threads(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct handle* handle = handle_of(env, &call);
  return handle && handle->pool ? number(env, pool_threads(handle->pool)) : fail(env, "the pool has ended");
}

// runPool(pool, pass, owner): a promise for the end of the pass whose record lies at the address `pass`. `owner` is
// kept alive until then; it must hold the pool and all memory that the pass reaches.
static napi_value js_run_pool(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct handle* handle = handle_of(env, &call);
  double address = whole_number(env, call.arguments[1], largest_exact);
  if (!handle || !handle->pool) return fail(env, "the pool has ended");
  if (handle->in_flight) return fail(env, "a pass is in flight");
  if (address <= 0) return fail(env, "expected the address of a pass");
  napi_value promise;
  if (napi_create_reference(env, call.arguments[2], 1, &handle->owner) != napi_ok) return fail(env, "expected an owner");
  if (napi_create_promise(env, &handle->deferred, &promise) != napi_ok) {
    napi_delete_reference(env, handle->owner);
    return fail(env, "no promise can be made");
  }
  handle->in_flight = 1;
  // Only a pass in flight keeps the process from ending.
  if (call.environment->passes++ == 0) napi_ref_threadsafe_function(env, call.environment->completed);
  pool_run(handle->pool, (struct pass*)(uintptr_t)address);
  return promise;
}

// destroyPool(pool): stops the pass in flight, if there is one, and waits for the threads to end. A second time it
// does nothing.
static napi_value js_destroy_pool(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct handle* handle = handle_of(env, &call);
  if (handle) destroy_pool(handle);
  return undefined(env);
}

// addressOf(bytes): of a Uint8Array; every address of today's machines is exact as a number.
static napi_value js_address_of(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  void* data = NULL;
  if (napi_get_typedarray_info(env, call.arguments[0], NULL, NULL, &data, NULL, NULL) != napi_ok) {
    return fail(env, "expected bytes");
  }
  return number(env, (double)(uintptr_t)data);
}

// useHugePages(bytes): under memory that has not been touched yet.
static napi_value js_use_huge_pages(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  void* data = NULL;
  size_t size = 0;
  napi_typedarray_type type;
  napi_status status = napi_get_typedarray_info(env, call.arguments[0], &type, &size, &data, NULL, NULL);
  if (status != napi_ok || type != napi_uint8_array) {
    return fail(env, "expected bytes");
  }
  use_huge_pages(data, size);
  return undefined(env);
}

// mapFile(descriptor, size): an external; undefined where the file cannot be mapped or has another size.
static napi_value js_map_file(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  double file = whole_number(env, call.arguments[0], 2147483647.0);
  double size = whole_number(env, call.arguments[1], largest_exact);
  struct mapping* mapping = file < 0 || size < 0 ? NULL : mapping_create((int)file, (uint64_t)size);
  if (!mapping) return undefined(env);
  struct handle* handle = add_handle(call.environment);
  if (!handle) {
    mapping_destroy(mapping);
    return fail(env, "not enough memory");
  }
  handle->mapping = mapping;
  return external_of(env, handle);
}

// mappingAddress(mapping): of its first byte.
static napi_value js_mapping_address(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct handle* handle = handle_of(env, &call);
  if (!handle || !handle->mapping) return fail(env, "the file is no longer mapped");
  return number(env, (double)(uintptr_t)mapping_bytes(handle->mapping));
}

// readAhead(mapping, parts): begins to bring in parts, given as the offset and the size of each in a Float64Array.
static napi_value js_read_ahead(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct handle* handle = handle_of(env, &call);
  napi_typedarray_type type;
  size_t length;
  double* numbers;
  if (!handle || !handle->mapping) return fail(env, "the file is no longer mapped");
  if (napi_get_typedarray_info(env, call.arguments[1], &type, &length, (void**)&numbers, NULL, NULL) != napi_ok ||
      type != napi_float64_array) {
    return fail(env, "expected a Float64Array");
  }
  struct file_part* parts = malloc(length / 2 * sizeof *parts);
  if (!parts) return undefined(env);
  for (size_t i = 0; i < length / 2; i++) {
    double offset = numbers[2 * i], size = numbers[2 * i + 1];
    int fits = offset >= 0 && offset <= largest_exact && size >= 0 && size <= largest_exact;
    parts[i] = fits ? (struct file_part){(uint64_t)offset, (uint64_t)size} : (struct file_part){0, 0};
  }
  mapping_read_ahead(handle->mapping, parts, length / 2);
  return undefined(env);
}

// forgetMapped(mapping, offset, size): of pages that are no longer read.
static napi_value js_forget_mapped(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct handle* handle = handle_of(env, &call);
  double offset = whole_number(env, call.arguments[1], largest_exact);
  double size = whole_number(env, call.arguments[2], largest_exact);
  if (!handle || !handle->mapping) return fail(env, "the file is no longer mapped");
  if (offset < 0 || size < 0) return fail(env, "expected an offset and a size");
  mapping_forget(handle->mapping, (uint64_t)offset, (uint64_t)size);
  return undefined(env);
}

// unmapFile(mapping). A second time it does nothing.
static napi_value js_unmap_file(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct handle* handle = handle_of(env, &call);
  if (handle) destroy_mapping(handle);
  return undefined(env);
}

static napi_value text(napi_env env, const char* value) {
  napi_value result = NULL;
  napi_create_string_utf8(env, value, NAPI_AUTO_LENGTH, &result);
  return result;
}

// kernelNames(): the names of the kernels that records number.
static napi_value js_kernel_names(napi_env env, napi_callback_info info) {
  (void)info;
  return text(env, kernel_name_list);
}

// functionNames(): the names of the elementwise functions that programs number.
static napi_value js_function_names(napi_env env, napi_callback_info info) {
  (void)info;
  return text(env, function_name_list);
}

static const struct {
  const char* name;
  napi_callback function;
} functions[] = {
    {"findLevel", js_find_level},           {"levelLanes", js_level_lanes}, {"createPool", js_create_pool},
    {"poolThreads", js_pool_threads},       {"runPool", js_run_pool},       {"destroyPool", js_destroy_pool},
    {"addressOf", js_address_of},           {"mapFile", js_map_file},       {"mappingAddress", js_mapping_address},
    {"useHugePages", js_use_huge_pages},    {"unmapFile", js_unmap_file},   {"kernelNames", js_kernel_names},
    {"functionNames", js_function_names},   {"forgetMapped", js_forget_mapped}, {"readAhead", js_read_ahead},
};

NAPI_MODULE_INIT() {
  struct environment* environment = calloc(1, sizeof *environment);
  napi_value name;
  if (!environment || napi_create_string_utf8(env, "rwkv pass", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_threadsafe_function(env, NULL, NULL, name, 0, 1, NULL, NULL, NULL, settle_pass,
                                      &environment->completed) != napi_ok) {
    free(environment);
    return fail(env, "not enough memory");
  }
  napi_unref_threadsafe_function(env, environment->completed);
  // Hooks run last first, so this one comes before the one that closes the function above.
  environment->users = 1;
  napi_add_env_cleanup_hook(env, end_environment, environment);
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
    napi_value function;
    if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].function, environment,
                             &function) != napi_ok ||
        napi_set_named_property(env, exports, functions[i].name, function) != napi_ok) {
      return fail(env, "the functions of the native library cannot be made");
    }
  }
  return exports;
}
