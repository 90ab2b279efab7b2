// Weights as they are stored, to float32.
#pragma once

#include "plan.h"
#include "simd.h"

static inline uint64_t element_size(uint32_t dtype) { return dtype == DTYPE_F32 ? 4 : 2; }

// A vector of elements from element `at`. Where `dtype` is a constant, so is the choice.
static inline __attribute__((always_inline)) vfloat load_weights(const void* weights, uint32_t dtype, uint64_t at) {
  if (dtype == DTYPE_F32) return load((const float*)weights + at);
  if (dtype == DTYPE_BF16) return load_bf16((const uint16_t*)weights + at);
  return load_f16((const uint16_t*)weights + at);
}

static inline __attribute__((always_inline)) float load_weight(const void* weights, uint32_t dtype, uint64_t at) {
  if (dtype == DTYPE_F32) return ((const float*)weights)[at];
  if (dtype == DTYPE_BF16) return bf16_to_float(((const uint16_t*)weights)[at]);
  return f16_to_float(((const uint16_t*)weights)[at]);
}
