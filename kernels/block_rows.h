// A row of a matrix in blocks (quantized.h), to float32: for tables, of which single rows are taken. The values are those of
// the plain decoders, to the bit.
#pragma once

#include "quantized.h"
#include "simd.h"

// An integer of 4 bits of input i of 32, of 16 outputs.
static inline uint32_t nibble_of(const uint8_t quant[4][group_outputs][4], uint32_t output, uint32_t i) {
  uint8_t both = quant[i / 4 % 4][output][i % 4];
  return i < 16 ? both & 15 : both >> 4;
}

// A block's 32 inputs at a time, or fewer at the end of a row.
static inline void row_of_pairs(const void* matrix, uint32_t dtype, uint64_t row, uint32_t inputs, float* out) {
  uint32_t output = row % group_outputs;
  uint64_t first = row / group_outputs * pairs_of(inputs);
  for (uint32_t from = 0; from < inputs; from += block_inputs) {
    uint32_t block = from / block_inputs % 2, count = inputs - from < block_inputs ? inputs - from : block_inputs;
    const struct q8_pair* q8 = (const struct q8_pair*)matrix + first + from / pair_inputs;
    const struct q4_pair* q4 = (const struct q4_pair*)matrix + first + from / pair_inputs;
    float scale = f16_to_float(dtype == DTYPE_Q8 ? q8->scale[block][output] : q4->scale[block][output]);
    for (uint32_t k = 0; k < count; k++) {
      int32_t number =
          dtype == DTYPE_Q8 ? q8->quant[block][k / 4][output][k % 4] : (int32_t)nibble_of(q4->quant[block], output, k) - 8;
      out[from + k] = (float)number * scale;
    }
  }
}

// A part of Q4_K or Q5_K; `upper` has fifth bits.
static inline void part_with_least(const struct q4k_super* super, uint32_t part, const uint8_t quant[4][group_outputs][4],
                                   uint32_t upper, uint32_t output, float* out) {
  uint32_t a = super->packed[0][output], b = super->packed[1][output], c = super->packed[2][output], shift = 8 * (part % 4);
  uint32_t small = part < 4 ? a >> shift & 63 : (c >> shift & 15) | (a >> (shift + 6) & 3) << 4;
  uint32_t small_least = part < 4 ? b >> shift & 63 : (c >> (shift + 4) & 15) | (b >> (shift + 6) & 3) << 4;
  float scale = f16_to_float(super->scale[0][output]) * (float)small;
  float least = f16_to_float(super->scale[1][output]) * (float)small_least;
  for (uint32_t k = 0; k < block_inputs; k++) {
    uint32_t number = nibble_of(quant, output, k) | (upper >> (8 * (k % 4) + k / 4) & 1) << 4;
    out[k] = scale * (float)number - least;
  }
}

static inline void part_of_q6k(const struct q6k_super* super, uint32_t part, uint32_t output, float* out) {
  const float scale = f16_to_float(super->scale[output]);
  for (uint32_t k = 0; k < block_inputs; k++) {
    uint32_t half = k / 16, upper = super->part[part].upper[half][output] >> (8 * (k % 4) + 2 * (k / 4 % 4)) & 3;
    int32_t number = (int32_t)(nibble_of(super->part[part].quant, output, k) | upper << 4) - 32;
    out[k] = scale * (float)super->part_scale[2 * part + half][output] * (float)number;
  }
}

static inline void row_of_supers(const void* matrix, uint32_t dtype, uint64_t row, uint32_t inputs, float* out) {
  uint32_t output = row % group_outputs;
  uint64_t first = row / group_outputs * (inputs / super_inputs);
  for (uint32_t from = 0; from < inputs; from += block_inputs) {
    uint64_t at = first + from / super_inputs;
    uint32_t part = from / block_inputs % parts_of_super;
    if (dtype == DTYPE_Q4K) {
      const struct q4k_super* super = (const struct q4k_super*)matrix + at;
      part_with_least(super, part, super->part[part].quant, 0, output, out + from);
    } else if (dtype == DTYPE_Q5K) {
      const struct q5k_super* super = (const struct q5k_super*)matrix + at;
      const struct q5k_part* of = super->part + part;
      // Super-blocks of both types begin alike.
      part_with_least((const struct q4k_super*)super, part, of->quant, of->upper[output], output, out + from);
    } else {
      part_of_q6k((const struct q6k_super*)matrix + at, part, output, out + from);
    }
  }
}
