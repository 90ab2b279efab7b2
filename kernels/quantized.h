// The layout of quantized matrices and rows; src/quantization/blocks.ts and super-blocks.ts have the same.
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

// Q4_K, Q5_K and Q6_K have blocks of 256 inputs, of which eight parts of 32 (sixteen of 16) have a scale of few bits, times
// one in binary16. Sixteen outputs are a group here, too, and inputs are a multiple of 256. In Q4_K and Q5_K a weight is
// scale[0] times its part's scale times its integer without sign, less scale[1] times its part's least value; scales and least
// values of the eight parts have 6 bits each, packed in three words of each output as ggml packs them in twelve bytes. In Q6_K
// it is the scale times its part's times its integer, 0 to 63, less 32. `quant` has the lower four bits of a part as a block
// of Q4_0 has them. Of the words with the upper bits, Q5_K's has bit k of byte b for input 4 k + b; those of Q6_K, one for
// each half of the part, two bits 2 k of byte b.
enum { super_inputs = 256, parts_of_super = super_inputs / block_inputs };

struct q4k_part {
  uint8_t quant[4][group_outputs][4];
};

struct q4k_super {
  uint16_t scale[2][group_outputs];
  uint32_t packed[3][group_outputs];
  struct q4k_part part[parts_of_super];
};

struct q5k_part {
  uint32_t upper[group_outputs];
  uint8_t quant[4][group_outputs][4];
};

struct q5k_super {
  uint16_t scale[2][group_outputs];
  uint32_t packed[3][group_outputs];
  struct q5k_part part[parts_of_super];
};

struct q6k_part {
  uint32_t upper[2][group_outputs];
  uint8_t quant[4][group_outputs][4];
};

struct q6k_super {
  uint16_t scale[group_outputs];
  int8_t part_scale[2 * parts_of_super][group_outputs];
  struct q6k_part part[parts_of_super];
};

static inline uint32_t pairs_of(uint32_t inputs) { return (inputs + pair_inputs - 1) / pair_inputs; }

// A row of x in 8 bits lies in memory as integers [pairs * 64], then the scale of every block [pairs * 2], then the sums of
// the integers of both halves of every block [pairs * 2][2].
static inline uint64_t quantized_row_size(uint32_t pairs) { return (uint64_t)pairs * (pair_inputs + 2 * 4 + 4 * 4); }
static inline const float* row_scales(const int8_t* row, uint32_t pairs) { return (const float*)(row + pairs * pair_inputs); }
static inline const int32_t* row_sums(const int8_t* row, uint32_t pairs) {
  return (const int32_t*)(row + pairs * (pair_inputs + 2 * 4));
}
// Sums of a row that is not finite may be any numbers, so they wrap around.
static inline int32_t block_sum(const int8_t* row, uint32_t pairs, uint32_t block) {
  const int32_t* halves = row_sums(row, pairs) + 2 * block;
  return (int32_t)((uint32_t)halves[0] + (uint32_t)halves[1]);
}

// What sums of products with integers that have a bias begin with.
static inline int32_t without_bias(int32_t bias, int32_t sum) { return (int32_t)(0u - (uint32_t)bias * (uint32_t)sum); }
