// Walks the records of a pass. Every thread walks the same list, takes its share of each record, and waits for the others
// where a record says so.

#include "plan.h"

#include "indices.h"
#include "kernels.h"
#include "simd.h"
#include "threads.h"

static void run_record(const struct pass* pass, const struct record* record, uint32_t thread) {
  switch (record->kernel) {
#define KERNEL(name, function) \
  case KERNEL_##name: return function(pass, record, thread);
#include "all_operations.def"
#undef KERNEL
  }
}

void LEVEL_NAME(run_pass)(struct pass* pass, uint32_t thread) {
  // Every thread checks by itself and reaches the same result, so none waits for a thread that has returned.
  uint32_t fault = fault_of(pass);
  if (fault != PASS_COMPLETE) {
    __atomic_store_n(&pass->status, fault, __ATOMIC_RELEASE);
    return;
  }
  const struct record* record = (const struct record*)(uintptr_t)pass->records;
  for (uint32_t i = 0; i < pass->record_count; i++, record = record_after(record)) {
    if (__atomic_load_n(&pass->status, __ATOMIC_RELAXED) != PASS_COMPLETE) return;
    run_record(pass, record, thread);
    uint32_t barrier = record->barrier_after;
    int few_rows = row_count(pass, record) < pass->thread_count;
    if (barrier == BARRIER_ALWAYS || (barrier == BARRIER_FEW_ROWS_APART && !few_rows)) barrier_wait(pass);
  }
}

// Floats in a vector, for counting the arithmetic of a probe.
uint32_t LEVEL_NAME(lane_count)(void) { return lanes; }

// The names that numbers stand for; the native library has them once for all levels (addon.c).
#if defined(__wasm__)
#include "names.h"
const char* kernel_names(void) { return kernel_name_list; }
const char* function_names(void) { return function_name_list; }
#endif
