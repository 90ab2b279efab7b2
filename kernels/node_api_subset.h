// What addon.c and mpi/ranks.c need of Node-API, version 8: an interface of C that stays as it is from one version of Node to the
// next, so that the library can be compiled without Node's headers. A test compiles them with those as well and
// compares.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct napi_env__* napi_env;
typedef struct napi_value__* napi_value;
typedef struct napi_ref__* napi_ref;
typedef struct napi_handle_scope__* napi_handle_scope;
typedef struct napi_deferred__* napi_deferred;
typedef struct napi_callback_info__* napi_callback_info;
typedef struct napi_threadsafe_function__* napi_threadsafe_function;

typedef enum { napi_ok } napi_status;
typedef enum { napi_tsfn_nonblocking, napi_tsfn_blocking } napi_threadsafe_function_call_mode;
typedef enum {
  napi_int8_array,
  napi_uint8_array,
  napi_float32_array = 7,
  napi_float64_array,
} napi_typedarray_type;

typedef napi_value (*napi_callback)(napi_env env, napi_callback_info info);
typedef void (*napi_finalize)(napi_env env, void* data, void* hint);
typedef void (*napi_cleanup_hook)(void* data);
typedef void (*napi_threadsafe_function_call_js)(napi_env env, napi_value function, void* context, void* data);

#define NAPI_AUTO_LENGTH SIZE_MAX
#define NAPI_MODULE_INIT()                                                                                     \
  __attribute__((visibility("default"))) int32_t node_api_module_get_api_version_v1(void) { return 8; } \
  __attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports)

napi_status napi_throw_error(napi_env env, const char* code, const char* message);
napi_status napi_get_cb_info(napi_env env, napi_callback_info info, size_t* count, napi_value* arguments,
                             napi_value* receiver, void** data);
napi_status napi_create_function(napi_env env, const char* name, size_t length, napi_callback function, void* data,
                                 napi_value* result);
napi_status napi_set_named_property(napi_env env, napi_value object, const char* name, napi_value value);
napi_status napi_get_undefined(napi_env env, napi_value* result);
napi_status napi_create_double(napi_env env, double value, napi_value* result);
napi_status napi_create_string_utf8(napi_env env, const char* text, size_t length, napi_value* result);
napi_status napi_get_value_bool(napi_env env, napi_value value, bool* result);
napi_status napi_get_value_double(napi_env env, napi_value value, double* result);
napi_status napi_get_value_string_utf8(napi_env env, napi_value value, char* text, size_t size, size_t* result);
napi_status napi_get_typedarray_info(napi_env env, napi_value array, napi_typedarray_type* type, size_t* length,
                                     void** data, napi_value* buffer, size_t* offset);
napi_status napi_get_array_length(napi_env env, napi_value array, uint32_t* length);
napi_status napi_get_element(napi_env env, napi_value array, uint32_t index, napi_value* element);
napi_status napi_create_external(napi_env env, void* data, napi_finalize finalize, void* hint, napi_value* result);
napi_status napi_get_value_external(napi_env env, napi_value value, void** result);
napi_status napi_create_reference(napi_env env, napi_value value, uint32_t count, napi_ref* result);
napi_status napi_delete_reference(napi_env env, napi_ref reference);
napi_status napi_create_promise(napi_env env, napi_deferred* deferred, napi_value* promise);
napi_status napi_resolve_deferred(napi_env env, napi_deferred deferred, napi_value resolution);
napi_status napi_create_error(napi_env env, napi_value code, napi_value message, napi_value* result);
napi_status napi_reject_deferred(napi_env env, napi_deferred deferred, napi_value rejection);
napi_status napi_add_env_cleanup_hook(napi_env env, napi_cleanup_hook hook, void* data);
napi_status napi_create_threadsafe_function(napi_env env, napi_value function, napi_value resource,
                                            napi_value resource_name, size_t most_queued, size_t threads,
                                            void* finalize_data, napi_finalize finalize, void* context,
                                            napi_threadsafe_function_call_js call_js,
                                            napi_threadsafe_function* result);
napi_status napi_call_threadsafe_function(napi_threadsafe_function function, void* data,
                                          napi_threadsafe_function_call_mode mode);
napi_status napi_ref_threadsafe_function(napi_env env, napi_threadsafe_function function);
napi_status napi_unref_threadsafe_function(napi_env env, napi_threadsafe_function function);
