// One function a kernel: the share of `thread` in `record`. All kernels are one translation unit (level.c), so that an
// instruction set is chosen for them together.
#pragma once

#include "plan.h"

static void embedding_forward(const struct pass* pass, const struct record* record, uint32_t thread);
static void layer_norm_forward(const struct pass* pass, const struct record* record, uint32_t thread);
static void token_shift_forward(const struct pass* pass, const struct record* record, uint32_t thread);
static void matmul_forward(const struct pass* pass, const struct record* record, uint32_t thread);
static void wkv_forward(const struct pass* pass, const struct record* record, uint32_t thread);
static void unary_forward(const struct pass* pass, const struct record* record, uint32_t thread);
static void binary_forward(const struct pass* pass, const struct record* record, uint32_t thread);
static void select_rows_forward(const struct pass* pass, const struct record* record, uint32_t thread);
static void quantize_rows_forward(const struct pass* pass, const struct record* record, uint32_t thread);
static void quantize_weights(const struct pass* pass, const struct record* record, uint32_t thread);
static void choose_tokens(const struct pass* pass, const struct record* record, uint32_t thread);
static void probe_read(const struct pass* pass, const struct record* record, uint32_t thread);
static void probe_arithmetic(const struct pass* pass, const struct record* record, uint32_t thread);
