// One function a kernel: the share of `thread` in `record`. All kernels are one translation unit (level.c), so that an
// instruction set is chosen for them together.
#pragma once

#include "plan.h"

// Each is a function of its own: inlined into one, all of them are more than a compiler, WebAssembly's above all, finds registers
// for.
#define KERNEL static __attribute__((noinline))

KERNEL void embedding_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void layer_norm_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void token_shift_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void matmul_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void wkv_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void unary_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void binary_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void select_rows_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void quantize_rows_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void quantize_weights(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void choose_tokens(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void probe_read(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void probe_arithmetic(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void cross_entropy_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void transposed_matmul_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void weight_gradient(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void embedding_gradient(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void layer_norm_gradient(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void row_moments_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void layer_norm_weight_gradient(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void column_sums(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void token_shift_gradient(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void segment_sums(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void wkv_gradient(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void dropout_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void scatter_rows(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void sum_of_squares(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void gradient_norm(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void adam_step(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void add_position_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void position_gradient(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void attention_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void attention_gradient(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void linear_attention_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void linear_attention_gradient(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void aft_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void aft_gradient(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void aft_bias_gradient(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void previous_rows_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void elman_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void elman_gradient(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void gru_forward(const struct pass* pass, const struct record* record, uint32_t thread);
KERNEL void gru_gradient(const struct pass* pass, const struct record* record, uint32_t thread);
#if !defined(__wasm__)
KERNEL void convert_weights(const struct pass* pass, const struct record* record, uint32_t thread);
#endif
