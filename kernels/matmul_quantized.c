// Products with quantized weights (quantized.h): rows of x are quantized too, so that the work is sums of products of bytes,
// which are exact, and one multiplication by both scales for each block. A vector holds neighbouring outputs. The order of
// the additions is the same for any number of rows.

#include "dot.h"
#include "load_weights.h"
#include "matmul.h"
#include "quantized.h"

enum { group_vectors = group_outputs / lanes };

#if LANES == 16
enum { quantized_rows = 4, quantized_groups = 2 };
#elif LANES == 8
enum { quantized_rows = 4, quantized_groups = 1 };
#else
enum { quantized_rows = 2, quantized_groups = 1 };
#endif

// Decoding reads two distant groups at a time, and asks for them ahead, as multiply_streams does.
enum { vector_groups = 2, quantized_ahead = 4096 };

// Pairs of blocks of a part of the inputs, such that a part of the groups' weights stays in the first level cache for all rows.
enum { part_pairs = 16 };

typedef vint quantized_totals[quantized_rows][vector_groups][group_vectors];

// totals[r][g] = for one block the products of its bytes with those of row r. `x` is where the rows' bytes for this block are.
static inline __attribute__((always_inline)) void block_q8(const int8_t* const* quant, uint32_t groups, const int8_t* x,
                                                           uint64_t stride, uint32_t rows, int ahead,
                                                           quantized_totals totals) {
  vint sums[quantized_rows][vector_groups][group_vectors] = {0};
  for (uint32_t step = 0; step < 8; step++) {
    vint four[quantized_rows];
    for (uint32_t r = 0; r < rows; r++) four[r] = splat_bytes(x + r * stride + 4 * step);
    for (uint32_t g = 0; g < groups; g++) {
      const int8_t* at = quant[g] + step * 4 * group_outputs;
      if (ahead) __builtin_prefetch(at + quantized_ahead);
      for (uint32_t v = 0; v < group_vectors; v++) {
        vint w = load_int(at + v * 4 * lanes);
        for (uint32_t r = 0; r < rows; r++) sums[r][g][v] = dot_signed(sums[r][g][v], w, four[r]);
      }
    }
  }
  for (uint32_t r = 0; r < rows; r++) {
    for (uint32_t g = 0; g < groups; g++) {
      for (uint32_t v = 0; v < group_vectors; v++) totals[r][g][v] = sums[r][g][v];
    }
  }
}

static inline __attribute__((always_inline)) void block_q4(const int8_t* const* quant, uint32_t groups, const int8_t* x,
                                                           uint64_t stride, uint32_t rows, int ahead,
                                                           quantized_totals totals) {
  vnibbles sums[quantized_rows][vector_groups][group_vectors] = {0};
  for (uint32_t step = 0; step < 4; step++) {
    vint low[quantized_rows], high[quantized_rows];
    for (uint32_t r = 0; r < rows; r++) {
      low[r] = splat_bytes(x + r * stride + 4 * step);
      high[r] = splat_bytes(x + r * stride + 4 * step + block_inputs / 2);
    }
    for (uint32_t g = 0; g < groups; g++) {
      const int8_t* at = quant[g] + step * 4 * group_outputs;
      if (ahead) __builtin_prefetch(at + quantized_ahead);
      for (uint32_t v = 0; v < group_vectors; v++) {
        vint both = load_int(at + v * 4 * lanes);
        vint lower = both & 0x0f0f0f0f, upper = (both >> 4) & 0x0f0f0f0f;
        for (uint32_t r = 0; r < rows; r++) {
          sums[r][g][v] = dot_nibbles(dot_nibbles(sums[r][g][v], lower, low[r]), upper, high[r]);
        }
      }
    }
  }
  for (uint32_t r = 0; r < rows; r++) {
    for (uint32_t g = 0; g < groups; g++) {
      for (uint32_t v = 0; v < group_vectors; v++) totals[r][g][v] = nibble_total(sums[r][g][v]);
    }
  }
}

// A tile of `groups` groups that lie `apart` bytes apart, by `rows` rows of x, over the pairs of blocks from `begin` to `end`.
// Outputs are written, or added to where begin > 0. Type, groups and rows are constants where this is used.
static inline __attribute__((always_inline)) void multiply_blocks(const struct record* record, uint32_t dtype,
                                                                  uint32_t output, uint32_t apart, uint32_t groups,
                                                                  uint32_t row, uint32_t rows, uint32_t begin,
                                                                  uint32_t end, int ahead) {
  const uint32_t size = dtype == DTYPE_Q8 ? sizeof(struct q8_pair) : sizeof(struct q4_pair);
  const int bias = dtype == DTYPE_Q8 ? signed_bias : 8;
  uint32_t pairs = pairs_of(record->inputs);
  uint64_t stride = quantized_row_size(pairs);
  const int8_t* x = (const int8_t*)(uintptr_t)record->address[1] + row * stride;
  const uint8_t* weight = (const uint8_t*)(uintptr_t)record->address[0];
  const uint8_t* group[vector_groups];
  for (uint32_t g = 0; g < groups; g++) {
    group[g] = weight + ((uint64_t)(output / group_outputs + g * apart) * pairs + begin) * size;
  }
  vfloat sums[quantized_rows][vector_groups][group_vectors] = {0};
  for (uint32_t pair = begin; pair < end; pair++) {
    for (uint32_t b = 0; b < 2; b++) {
      const int8_t* quant[vector_groups];
      for (uint32_t g = 0; g < groups; g++) {
        uint32_t block = dtype == DTYPE_Q8 ? sizeof(((struct q8_pair*)0)->quant[0]) : sizeof(((struct q4_pair*)0)->quant[0]);
        quant[g] = (const int8_t*)group[g] + sizeof(((struct q8_pair*)0)->scale) + b * block;
      }
      const int8_t* bytes = x + pair * pair_inputs + b * block_inputs;
      quantized_totals totals;
      if (dtype == DTYPE_Q8) block_q8(quant, groups, bytes, stride, rows, ahead, totals);
      else block_q4(quant, groups, bytes, stride, rows, ahead, totals);
      for (uint32_t g = 0; g < groups; g++) {
        for (uint32_t v = 0; v < group_vectors; v++) {
          vfloat scale = load_f16((const uint16_t*)group[g] + b * group_outputs + v * lanes);
          for (uint32_t r = 0; r < rows; r++) {
            const int8_t* of_row = x + r * stride;
            vint total = totals[r][g][v] - splat_int(bias * row_sums(of_row, pairs)[2 * pair + b]);
            vfloat factor = scale * splat(row_scales(of_row, pairs)[2 * pair + b]);
            sums[r][g][v] = multiply_add(__builtin_convertvector(total, vfloat), factor, sums[r][g][v]);
          }
        }
      }
    }
    for (uint32_t g = 0; g < groups; g++) group[g] += size;
  }
  for (uint32_t r = 0; r < rows; r++) {
    for (uint32_t g = 0; g < groups; g++) {
      for (uint32_t v = 0; v < group_vectors; v++) {
        uint32_t o = output + g * apart * group_outputs + v * lanes;
        if (o >= record->width) continue;
        float* to = floats(record->address[4]) + (uint64_t)(row + r) * record->width + o;
        uint32_t left = record->width - o;
        store_up_to(to, begin > 0 ? load_up_to(to, left) + sums[r][g][v] : sums[r][g][v], left);
      }
    }
  }
}

typedef void blocks_function(const struct record* record, uint32_t output, uint32_t apart, uint32_t row, uint32_t begin,
                             uint32_t end);

#define DEFINE_BLOCKS(name, dtype, groups, rows, ahead)                                                               \
  static void name(const struct record* record, uint32_t output, uint32_t apart, uint32_t row, uint32_t begin,        \
                   uint32_t end) {                                                                                    \
    multiply_blocks(record, dtype, output, apart, groups, row, rows, begin, end, ahead);                              \
  }
#define DEFINE_QUANTIZED(name, dtype)                                  \
  DEFINE_BLOCKS(name##_streams, dtype, vector_groups, 1, 1)            \
  DEFINE_BLOCKS(name##_1x1, dtype, 1, 1, 0)                            \
  DEFINE_BLOCKS(name##_1xn, dtype, 1, quantized_rows, 0)               \
  DEFINE_BLOCKS(name##_nx1, dtype, quantized_groups, 1, 0)             \
  DEFINE_BLOCKS(name##_nxn, dtype, quantized_groups, quantized_rows, 0)

DEFINE_QUANTIZED(blocks_q8, DTYPE_Q8)
DEFINE_QUANTIZED(blocks_q4, DTYPE_Q4)

static const struct {
  blocks_function *streams, *one_group_one_row, *one_group, *one_row, *full;
} quantized_functions[] = {
    {blocks_q8_streams, blocks_q8_1x1, blocks_q8_1xn, blocks_q8_nx1, blocks_q8_nxn},
    {blocks_q4_streams, blocks_q4_1x1, blocks_q4_1xn, blocks_q4_nx1, blocks_q4_nxn},
};

// `outputs` begins at a group.
static void multiply_quantized(const struct record* record, struct range outputs, uint32_t rows) {
  uint32_t type = record->dtype - DTYPE_Q8;
  uint32_t pairs = pairs_of(record->inputs);
  uint32_t groups = (outputs.end - outputs.begin + group_outputs - 1) / group_outputs;
  if (rows == 1) {
    uint32_t apart = groups / vector_groups;
    for (uint32_t g = 0; g < apart; g++) {
      quantized_functions[type].streams(record, outputs.begin + g * group_outputs, apart, 0, 0, pairs);
    }
    for (uint32_t g = vector_groups * apart; g < groups; g++) {
      quantized_functions[type].one_group_one_row(record, outputs.begin + g * group_outputs, 0, 0, 0, pairs);
    }
    return;
  }
  for (uint32_t begin = 0, end; begin < pairs; begin = end) {
    end = pairs - begin > part_pairs ? begin + part_pairs : pairs;
    for (uint32_t g = 0, taken; g < groups; g += taken) {
      taken = groups - g >= quantized_groups ? quantized_groups : 1;
      uint32_t output = outputs.begin + g * group_outputs;
      for (uint32_t t = 0, height; t < rows; t += height) {
        height = rows - t >= quantized_rows ? quantized_rows : 1;
        blocks_function* multiply =
            taken == 1 ? (height == 1 ? quantized_functions[type].one_group_one_row : quantized_functions[type].one_group)
                       : (height == 1 ? quantized_functions[type].one_row : quantized_functions[type].full);
        multiply(record, output, 1, t, begin, end);
      }
    }
  }
}
