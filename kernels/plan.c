// Walks the records of a pass. Every thread walks the same list, takes its share of each record, and meets the others
// where a record says so.

#include "plan.h"

#include "indices.h"
#include "kernels.h"
#include "simd.h"
#include "threads.h"

static void run_record(const struct pass* pass, const struct record* record, uint32_t thread) {
  switch (record->kernel) {
    case KERNEL_EMBEDDING: return embedding_forward(pass, record, thread);
    case KERNEL_LAYER_NORM: return layer_norm_forward(pass, record, thread);
    case KERNEL_TOKEN_SHIFT: return token_shift_forward(pass, record, thread);
    case KERNEL_MATMUL: return matmul_forward(pass, record, thread);
    case KERNEL_WKV: return wkv_forward(pass, record, thread);
    case KERNEL_UNARY: return unary_forward(pass, record, thread);
    case KERNEL_BINARY: return binary_forward(pass, record, thread);
    case KERNEL_SELECT_ROWS: return select_rows_forward(pass, record, thread);
    case KERNEL_QUANTIZE_ROWS: return quantize_rows_forward(pass, record, thread);
    case KERNEL_QUANTIZE_WEIGHTS: return quantize_weights(pass, record, thread);
    case KERNEL_CHOOSE: return choose_tokens(pass, record, thread);
    case KERNEL_PROBE_READ: return probe_read(pass, record, thread);
    case KERNEL_PROBE_ARITHMETIC: return probe_arithmetic(pass, record, thread);
    case KERNEL_CROSS_ENTROPY: return cross_entropy_forward(pass, record, thread);
    case KERNEL_TRANSPOSED_MATMUL: return transposed_matmul_forward(pass, record, thread);
    case KERNEL_WEIGHT_GRADIENT: return weight_gradient(pass, record, thread);
    case KERNEL_EMBEDDING_GRADIENT: return embedding_gradient(pass, record, thread);
    case KERNEL_LAYER_NORM_GRADIENT: return layer_norm_gradient(pass, record, thread);
    case KERNEL_ROW_MOMENTS: return row_moments_forward(pass, record, thread);
    case KERNEL_LAYER_NORM_WEIGHT_GRADIENT: return layer_norm_weight_gradient(pass, record, thread);
    case KERNEL_COLUMN_SUMS: return column_sums(pass, record, thread);
    case KERNEL_TOKEN_SHIFT_GRADIENT: return token_shift_gradient(pass, record, thread);
    case KERNEL_WKV_GRADIENT: return wkv_gradient(pass, record, thread);
    case KERNEL_SEGMENT_SUMS: return segment_sums(pass, record, thread);
    case KERNEL_DROPOUT: return dropout_forward(pass, record, thread);
    case KERNEL_SCATTER_ROWS: return scatter_rows(pass, record, thread);
    case KERNEL_SUM_OF_SQUARES: return sum_of_squares(pass, record, thread);
    case KERNEL_GRADIENT_NORM: return gradient_norm(pass, record, thread);
    case KERNEL_ADAM: return adam_step(pass, record, thread);
    case KERNEL_ADD_POSITION: return add_position_forward(pass, record, thread);
    case KERNEL_POSITION_GRADIENT: return position_gradient(pass, record, thread);
    case KERNEL_ATTENTION: return attention_forward(pass, record, thread);
    case KERNEL_ATTENTION_GRADIENT: return attention_gradient(pass, record, thread);
    case KERNEL_LINEAR_ATTENTION: return linear_attention_forward(pass, record, thread);
    case KERNEL_LINEAR_ATTENTION_GRADIENT: return linear_attention_gradient(pass, record, thread);
    case KERNEL_AFT: return aft_forward(pass, record, thread);
    case KERNEL_AFT_GRADIENT: return aft_gradient(pass, record, thread);
    case KERNEL_AFT_BIAS_GRADIENT: return aft_bias_gradient(pass, record, thread);
    case KERNEL_PREVIOUS_ROWS: return previous_rows_forward(pass, record, thread);
    case KERNEL_ELMAN: return elman_forward(pass, record, thread);
    case KERNEL_ELMAN_GRADIENT: return elman_gradient(pass, record, thread);
    case KERNEL_GRU: return gru_forward(pass, record, thread);
    case KERNEL_GRU_GRADIENT: return gru_gradient(pass, record, thread);
#if !defined(__wasm__)
    case KERNEL_CONVERT_WEIGHTS: return convert_weights(pass, record, thread);
#endif
  }
}

void LEVEL_NAME(run_pass)(struct pass* pass, uint32_t thread) {
  // Every thread looks for itself and finds the same, so none waits for another that has left.
  uint32_t fault = fault_of(pass);
  if (fault != PASS_COMPLETE) {
    __atomic_store_n(&pass->status, fault, __ATOMIC_RELEASE);
    return;
  }
  const struct record* records = (const struct record*)(uintptr_t)pass->records;
  for (uint32_t i = 0; i < pass->record_count; i++) {
    if (__atomic_load_n(&pass->status, __ATOMIC_RELAXED) != PASS_COMPLETE) return;
    run_record(pass, &records[i], thread);
    uint32_t barrier = records[i].barrier_after;
    int few_rows = row_count(pass, &records[i]) < pass->thread_count;
    if (barrier == BARRIER_ALWAYS || (barrier == BARRIER_FEW_ROWS_APART && !few_rows)) barrier_wait(pass);
  }
}

// Floats in a vector, for counting the arithmetic of a probe.
uint32_t LEVEL_NAME(lane_count)(void) { return lanes; }
