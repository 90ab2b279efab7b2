// Products with quantized weights (quantized.h): rows of x are quantized too, so that the work is sums of products of
// bytes, which are exact, and one multiplication by both scales for each block. A vector holds neighbouring outputs.
// The order of the additions is the same for any number of rows.

#include "dot.h"
#include "load_weights.h"
#include "matmul.h"
#include "quantized.h"

enum { group_vectors = group_outputs / lanes };

// A tile is a strip of rows by one group or by two distant ones, as many as leave eight sums in registers at most, or
// sixteen where there are 32 registers.
#if LANES == 16
enum { quantized_rows = 8, tile_vectors = 16 };
#elif LANES == 8
enum { quantized_rows = 4, tile_vectors = 8 };
#else
enum { quantized_rows = 2, tile_vectors = 8 };
#endif
enum { tile_groups = 2 };

// How far ahead of a single strip weights are asked for, in bytes.
enum { quantized_distance = 4096 };

// Pairs of blocks of a part of the inputs, such that a part of a tile's weights stays in the first level cache for all
// strips.
enum { part_pairs = 16 };

typedef vint quantized_totals[quantized_rows][tile_groups][group_vectors];

// Weights to ask for: for each line of every group that is taken one, `step` bytes after the one before.
struct quantized_ahead {
  const uint8_t* at;
  uint64_t apart;
  uint32_t step;
};

static inline __attribute__((always_inline)) void ask_ahead(struct quantized_ahead* ahead, uint32_t groups) {
  for (uint32_t g = 0; g < groups; g++) __builtin_prefetch(ahead->at + g * ahead->apart);
  ahead->at += ahead->step;
}

// totals[r][g] += for one block the products of its bytes with those of row r. `x` is where the rows' bytes for this
// block are.
static inline __attribute__((always_inline)) void block_q8(const int8_t* const* quant, uint32_t groups, const int8_t* x,
                                                           uint64_t stride, uint32_t rows,
                                                           struct quantized_ahead* ahead, quantized_totals totals) {
  for (uint32_t step = 0; step < 8; step++) {
    vint four[quantized_rows];
    ask_ahead(ahead, groups);
    for (uint32_t r = 0; r < rows; r++) four[r] = splat_bytes(x + r * stride + 4 * step);
    for (uint32_t g = 0; g < groups; g++) {
      const int8_t* at = quant[g] + step * 4 * group_outputs;
      for (uint32_t v = 0; v < group_vectors; v++) {
        vint w = load_int(at + v * 4 * lanes);
        for (uint32_t r = 0; r < rows; r++) totals[r][g][v] = dot_signed(totals[r][g][v], w, four[r]);
      }
    }
  }
}

static inline __attribute__((always_inline)) void block_q4(const int8_t* const* quant, uint32_t groups, const int8_t* x,
                                                           uint64_t stride, uint32_t rows,
                                                           struct quantized_ahead* ahead, quantized_totals totals) {
  vnibbles sums[quantized_rows][tile_groups][group_vectors] = {0};
  for (uint32_t step = 0; step < 4; step++) {
    vint low[quantized_rows], high[quantized_rows];
    ask_ahead(ahead, groups);
    for (uint32_t r = 0; r < rows; r++) {
      low[r] = splat_bytes(x + r * stride + 4 * step);
      high[r] = splat_bytes(x + r * stride + 4 * step + block_inputs / 2);
    }
    for (uint32_t g = 0; g < groups; g++) {
      const int8_t* at = quant[g] + step * 4 * group_outputs;
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
      for (uint32_t v = 0; v < group_vectors; v++) totals[r][g][v] += nibble_total(sums[r][g][v]);
    }
  }
}

static inline uint32_t pair_size(uint32_t dtype) {
  return dtype == DTYPE_Q8 ? sizeof(struct q8_pair) : sizeof(struct q4_pair);
}

// A tile of `groups` groups that are `apart` groups apart, by `rows` rows of x, over the pairs of blocks from `begin`
// to `end`, whose results are added to what is there, one after the other, where begin > 0. Type, groups and rows are
// constants where this is used.
static inline __attribute__((always_inline)) void multiply_blocks(const struct record* record, uint32_t dtype,
                                                                  uint32_t output, uint32_t apart, uint32_t groups,
                                                                  uint32_t row, uint32_t rows, uint32_t begin,
                                                                  uint32_t end, struct quantized_ahead ahead) {
  const uint32_t size = pair_size(dtype);
  const int bias = dtype == DTYPE_Q8 ? signed_bias : 8;
  uint32_t pairs = pairs_of(record->inputs);
  uint64_t stride = quantized_row_size(pairs);
  const int8_t* x = (const int8_t*)(uintptr_t)record->address[0] + row * stride;
  const uint8_t* weight = (const uint8_t*)(uintptr_t)record->address[1];
  const uint8_t* group[tile_groups];
  for (uint32_t g = 0; g < groups; g++) {
    group[g] = weight + ((uint64_t)(output / group_outputs + g * apart) * pairs + begin) * size;
  }
  vfloat sums[quantized_rows][tile_groups][group_vectors] = {0};
  float* results = floats(record->address[4]) + (uint64_t)row * record->width;
  if (begin > 0) {
    for (uint32_t r = 0; r < rows; r++) {
      for (uint32_t g = 0; g < groups; g++) {
        for (uint32_t v = 0; v < group_vectors; v++) {
          uint32_t o = output + g * apart * group_outputs + v * lanes;
          if (o >= record->width) continue;
          sums[r][g][v] = load_up_to(results + (uint64_t)r * record->width + o, record->width - o);
        }
      }
    }
  }
  for (uint32_t pair = begin; pair < end; pair++) {
    ask_ahead(&ahead, groups);
    for (uint32_t b = 0; b < 2; b++) {
      const int8_t* quant[tile_groups];
      for (uint32_t g = 0; g < groups; g++) {
        uint32_t block =
            dtype == DTYPE_Q8 ? sizeof(((struct q8_pair*)0)->quant[0]) : sizeof(((struct q4_pair*)0)->quant[0]);
        quant[g] = (const int8_t*)group[g] + sizeof(((struct q8_pair*)0)->scale) + b * block;
      }
      const int8_t* bytes = x + pair * pair_inputs + b * block_inputs;
      quantized_totals totals;
      for (uint32_t r = 0; r < rows; r++) {
        vint start = splat_int(without_bias(bias, block_sum(x + r * stride, pairs, 2 * pair + b)));
        for (uint32_t g = 0; g < groups; g++) {
          for (uint32_t v = 0; v < group_vectors; v++) totals[r][g][v] = start;
        }
      }
      if (dtype == DTYPE_Q8) block_q8(quant, groups, bytes, stride, rows, &ahead, totals);
      else block_q4(quant, groups, bytes, stride, rows, &ahead, totals);
      for (uint32_t g = 0; g < groups; g++) {
        for (uint32_t v = 0; v < group_vectors; v++) {
          vfloat scale = load_f16((const uint16_t*)group[g] + b * group_outputs + v * lanes);
          for (uint32_t r = 0; r < rows; r++) {
            vfloat factor = scale * splat(row_scales(x + r * stride, pairs)[2 * pair + b]);
            sums[r][g][v] = multiply_add(__builtin_convertvector(totals[r][g][v], vfloat), factor, sums[r][g][v]);
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
        store_up_to(results + (uint64_t)r * record->width + o, sums[r][g][v], record->width - o);
      }
    }
  }
}

typedef void blocks_function(const struct record* record, uint32_t output, uint32_t apart, uint32_t row, uint32_t begin,
                             uint32_t end, struct quantized_ahead ahead);

#define DEFINE_BLOCKS(name, dtype, groups, rows)                                                                   \
  static void name##_##groups##x##rows(const struct record* record, uint32_t output, uint32_t apart, uint32_t row, \
                                       uint32_t begin, uint32_t end, struct quantized_ahead ahead) {               \
    multiply_blocks(record, dtype, output, apart, groups, row, rows, begin, end, ahead);                           \
  }
#if LANES == 16
#define EACH_STRIP(STRIP) STRIP(1) STRIP(2) STRIP(3) STRIP(4) STRIP(5) STRIP(6) STRIP(7) STRIP(8)
#elif LANES == 8
#define EACH_STRIP(STRIP) STRIP(1) STRIP(2) STRIP(3) STRIP(4)
#else
#define EACH_STRIP(STRIP) STRIP(1) STRIP(2)
#endif
#define DEFINE_QUANTIZED(rows)                   \
  DEFINE_BLOCKS(blocks_q8, DTYPE_Q8, 1, rows)    \
  DEFINE_BLOCKS(blocks_q8, DTYPE_Q8, 2, rows)    \
  DEFINE_BLOCKS(blocks_q4, DTYPE_Q4, 1, rows)    \
  DEFINE_BLOCKS(blocks_q4, DTYPE_Q4, 2, rows)
EACH_STRIP(DEFINE_QUANTIZED)

#define OF_STRIP(rows) {{blocks_q8_1x##rows, blocks_q8_2x##rows}, {blocks_q4_1x##rows, blocks_q4_2x##rows}},
// By rows, type and groups, less one.
static blocks_function* const quantized_functions[quantized_rows][2][tile_groups] = {EACH_STRIP(OF_STRIP)};

// A tile by all rows, in strips of nearly the same height. One strip asks for its own weights some way ahead; of
// several each asks for a portion of those of the next tile.
static void multiply_quantized_strips(const struct record* record, uint32_t rows, uint32_t output, uint32_t apart,
                                      uint32_t groups, uint32_t begin, uint32_t end, const uint8_t* next) {
  const uint64_t size = pair_size(record->dtype), group = size * pairs_of(record->inputs), part = size * (end - begin);
  const uint32_t strips = (rows + quantized_rows - 1) / quantized_rows;
  const uint8_t* weights = (const uint8_t*)(uintptr_t)record->address[1] + output / group_outputs * group;
  for (uint32_t strip = 0; strip < strips; strip++) {
    uint32_t t = rows * strip / strips, height = rows * (strip + 1) / strips - t;
    struct quantized_ahead ahead = {strips == 1 ? weights + quantized_distance : next + part * strip / strips,
                                    apart * group, (64 + strips - 1) / strips};
    quantized_functions[height - 1][record->dtype - DTYPE_Q8][groups - 1](record, output, apart, t, begin, end, ahead);
  }
}

// `outputs` begins at a group.
static void multiply_quantized(const struct record* record, struct range outputs, uint32_t rows) {
  const uint32_t pairs = pairs_of(record->inputs),
                 all = (outputs.end - outputs.begin + group_outputs - 1) / group_outputs;
  const uint64_t size = pair_size(record->dtype), group = size * pairs;
  const uint8_t* matrix = (const uint8_t*)(uintptr_t)record->address[1] + outputs.begin / group_outputs * group;
  const uint32_t strips = (rows + quantized_rows - 1) / quantized_rows, height = (rows + strips - 1) / strips;
  const uint32_t groups = height * tile_groups * group_vectors <= tile_vectors ? tile_groups : 1, tiles = all / groups;
  const uint32_t part = strips == 1 ? pairs : part_pairs;
  for (uint32_t begin = 0, end; begin < pairs; begin = end) {
    end = pairs - begin > part ? begin + part : pairs;
    for (uint32_t i = 0; i < tiles; i++) {
      // After the last tile comes the first one of the next part.
      const uint8_t* next = i + 1 < tiles ? matrix + (i + 1) * group + begin * size : matrix + end * size;
      multiply_quantized_strips(record, rows, outputs.begin + i * group_outputs, tiles, groups, begin, end, next);
    }
    for (uint32_t g = groups * tiles; g < all; g++) {
      multiply_quantized_strips(record, rows, outputs.begin + g * group_outputs, 0, 1, begin, end, matrix + g * group);
    }
  }
}
