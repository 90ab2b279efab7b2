// The layout of quantized matrices and rows; src/quantization/blocks.ts has the same.
//
// The numbers are those of ggml's Q8_0 and Q4_0: 32 inputs of an output are a block, with a scale in binary16; a weight is its
// integer (Q8_0: -127 to 127, Q4_0: 0 to 15, less 8) times the scale. They are laid out so that a vector holds neighbouring
// outputs, which leaves no sums across lanes: 16 outputs are a group, and a group holds, for every two blocks of inputs, the
// scales, then for four inputs at a time the bytes of all 16 outputs. In Q4_0 a byte has input i in its lower half and input
// i + 16 in its upper one. Outputs and inputs that are missing from the last group and the last two blocks are zeros.
#pragma once

#include <stdint.h>

enum { block_inputs = 32, group_outputs = 16, pair_inputs = 2 * block_inputs };

struct q8_pair {
  uint16_t scale[2][group_outputs];
  int8_t quant[2][8][group_outputs][4];
};

struct q4_pair {
  uint16_t scale[2][group_outputs];
  uint8_t quant[2][4][group_outputs][4];
};

static inline uint32_t pairs_of(uint32_t inputs) { return (inputs + pair_inputs - 1) / pair_inputs; }

// A row of x in 8 bits lies in memory as integers [pairs * 64], then the scale of every block [pairs * 2], then the sum of
// every block's integers [pairs * 2].
static inline uint64_t quantized_row_size(uint32_t pairs) { return (uint64_t)pairs * (pair_inputs + 2 * 4 + 2 * 4); }
static inline const float* row_scales(const int8_t* row, uint32_t pairs) { return (const float*)(row + pairs * pair_inputs); }
static inline const int32_t* row_sums(const int8_t* row, uint32_t pairs) {
  return (const int32_t*)(row + pairs * (pair_inputs + 2 * 4));
}
