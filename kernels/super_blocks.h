// What products with super-blocks (quantized.h) share: of one row, and of several.
#pragma once

#include "dot.h"
#include "quantized.h"
#include "simd.h"

// How far ahead weights are asked for where the next ones lie behind these, in bytes.
enum { super_distance = 2048 };

typedef int8_t vsmall __attribute__((vector_size(LANES)));

static inline uint64_t super_size(uint32_t dtype) {
  return dtype == DTYPE_Q4K ? sizeof(struct q4k_super) : dtype == DTYPE_Q5K ? sizeof(struct q5k_super) : sizeof(struct q6k_super);
}

// The scales and least values of four parts, in a byte each.
struct packed_scales {
  vint scales, leasts;
};

static inline __attribute__((always_inline)) struct packed_scales scales_of_four(const uint32_t packed[3][group_outputs],
                                                                                 uint32_t output, uint32_t part) {
  vint a = load_int(packed[0] + output), b = load_int(packed[1] + output), c = load_int(packed[2] + output);
  if (part < 4) return (struct packed_scales){a & 0x3f3f3f3f, b & 0x3f3f3f3f};
  return (struct packed_scales){(c & 0x0f0f0f0f) | ((a >> 2) & 0x30303030), ((c >> 4) & 0x0f0f0f0f) | ((b >> 2) & 0x30303030)};
}

static inline vfloat to_floats(vint x) { return __builtin_convertvector(x, vfloat); }

static inline __attribute__((always_inline)) void ask_part(const uint8_t* ahead, uint64_t from, uint64_t to) {
  for (uint64_t at = from; at < to; at += 64) __builtin_prefetch(ahead + at);
}

static inline vfloat small_scale(const int8_t* scale) {
  vsmall small;
  __builtin_memcpy(&small, scale, sizeof small);
  return to_floats(__builtin_convertvector(small, vint));
}
