// Matrix products with weights as they are stored: float32, binary16 or bfloat16. Arithmetic is float32. Threads share the
// outputs, so each weight is read by one thread.
//
// The work is cut into tiles of a few outputs by a few rows, whose sums stay in registers: a loaded vector of weights then
// serves every row of the tile, a loaded vector of x every output. A single row (decoding) is a tile of its own height.

#include "plan.h"
#include "simd.h"

#if LANES == 16
enum { tile_outputs = 4, tile_rows = 6 };  // 24 sums and 5 operands in 32 registers
#else
enum { tile_outputs = 4, tile_rows = 2 };  // 8 sums and 5 operands in 16 registers
#endif

// Inputs of many rows are taken in blocks, so that the rows' part of x stays in the second level cache.
enum { input_block = 1024 };

#ifndef PREFETCH
#define PREFETCH 8192
#endif

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

// sums[r][o] = sum over i < count of weight[o][i] * x[r][i]; rows of both are `inputs` elements apart. Type, outputs and rows
// are constants where this is used, so that the loops over them are unrolled.
static inline __attribute__((always_inline)) void multiply_tile(
    const void* weight, uint32_t dtype, const float* x, uint64_t inputs, uint32_t count, uint32_t outputs, uint32_t rows,
    float sums[][tile_outputs]) {
  vfloat partial[tile_rows][tile_outputs] = {0};
  uint32_t whole = count - count % lanes;
  for (uint32_t i = 0; i < whole; i += lanes) {
    vfloat w[tile_outputs];
    for (uint32_t o = 0; o < outputs; o++) w[o] = load_weights(weight, dtype, o * inputs + i);
    for (uint32_t r = 0; r < rows; r++) {
      vfloat value = load(x + r * inputs + i);
      for (uint32_t o = 0; o < outputs; o++) partial[r][o] += w[o] * value;
    }
  }
  for (uint32_t r = 0; r < rows; r++) {
    for (uint32_t o = 0; o < outputs; o++) {
      sums[r][o] = sum(partial[r][o]);
      for (uint32_t i = whole; i < count; i++) sums[r][o] += load_weight(weight, dtype, o * inputs + i) * x[r * inputs + i];
    }
  }
}

// One output of one row, the product of decoding: as fast as weights come from memory, so they are read in one stream, from
// row to row of the matrix, and asked for well ahead, since the processor's own prefetching ends at every page.
static inline __attribute__((always_inline)) float multiply_row(
    const void* weight, uint32_t dtype, const float* x, uint32_t count) {
  enum { streams = 4 };  // independent sums hide the latency of an addition
  const uint32_t ahead = PREFETCH / (dtype == DTYPE_F32 ? 4 : 2);
  vfloat partial[streams] = {0};
  uint32_t i = 0;
  for (; i + streams * lanes <= count; i += streams * lanes) {
    for (uint32_t s = 0; s < streams; s++) {
      if (dtype == DTYPE_F32) __builtin_prefetch((const float*)weight + i + s * lanes + ahead);
      else if (s % 2 == 0) __builtin_prefetch((const uint16_t*)weight + i + s * lanes + ahead);
      partial[s] += load_weights(weight, dtype, i + s * lanes) * load(x + i + s * lanes);
    }
  }
  for (; i + lanes <= count; i += lanes) partial[0] += load_weights(weight, dtype, i) * load(x + i);
  float total = sum((partial[0] + partial[1]) + (partial[2] + partial[3]));
  for (; i < count; i++) total += load_weight(weight, dtype, i) * x[i];
  return total;
}

typedef void tile_function(const void* weight, const float* x, uint64_t inputs, uint32_t count, float sums[][tile_outputs]);

#define DEFINE_TILE(name, dtype, outputs, rows)                                                                            \
  static void name(const void* weight, const float* x, uint64_t inputs, uint32_t count, float sums[][tile_outputs]) { \
    multiply_tile(weight, dtype, x, inputs, count, outputs, rows, sums);                                                   \
  }
#define DEFINE_ROW(name, dtype)                                                                                            \
  static void name(const void* weight, const float* x, uint64_t inputs, uint32_t count, float sums[][tile_outputs]) { \
    (void)inputs;                                                                                                          \
    sums[0][0] = multiply_row(weight, dtype, x, count);                                                                    \
  }
#define DEFINE_TILES(name, dtype)                         \
  DEFINE_ROW(name##_1x1, dtype)                           \
  DEFINE_TILE(name##_1xn, dtype, 1, tile_rows)            \
  DEFINE_TILE(name##_nx1, dtype, tile_outputs, 1)         \
  DEFINE_TILE(name##_nx2, dtype, tile_outputs, 2)         \
  DEFINE_TILE(name##_nxn, dtype, tile_outputs, tile_rows)

DEFINE_TILES(tile_f32, DTYPE_F32)
DEFINE_TILES(tile_f16, DTYPE_F16)
DEFINE_TILES(tile_bf16, DTYPE_BF16)

// By type, as enum dtype numbers them.
static const struct {
  tile_function *one_output_one_row, *one_output, *one_row, *two_rows, *full;
} tiles[] = {
    {tile_f32_1x1, tile_f32_1xn, tile_f32_nx1, tile_f32_nx2, tile_f32_nxn},
    {tile_f16_1x1, tile_f16_1xn, tile_f16_nx1, tile_f16_nx2, tile_f16_nxn},
    {tile_bf16_1x1, tile_bf16_1xn, tile_bf16_nx1, tile_bf16_nx2, tile_bf16_nxn},
};

static float activate(uint32_t activation, float x) {
  switch (activation) {
    case ACTIVATION_SIGMOID: return sigmoid_v(splat(x))[0];
    case ACTIVATION_RELU_SQUARED: return x < 0 ? 0 : x * x;
    default: return x;
  }
}

// out[t][o] = activation(sum over i of weight[o][i] * x[t][i]) * multiplier[t][o] + addend[t][o]
//   address: weight [width, inputs] of dtype, x [rows, inputs], multiplier, addend [rows, width] or 0, out [rows, width]
void matmul_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const uint8_t* weight = (const uint8_t*)(uintptr_t)record->address[0];
  const float* x = floats(record->address[1]);
  const float* multiplier = floats(record->address[2]);
  const float* addend = floats(record->address[3]);
  float* out = floats(record->address[4]);
  uint32_t width = record->width;
  uint32_t inputs = record->inputs;
  uint32_t rows = row_count(pass, record);
  uint64_t element = record->dtype == DTYPE_F32 ? 4 : 2;
  uint32_t block = rows > tile_rows ? input_block : inputs;
  struct range outputs = share_of(width, tile_outputs, thread, pass->thread_count);

  for (uint32_t i = 0; i < inputs; i += block) {
    uint32_t count = inputs - i < block ? inputs - i : block;
    uint32_t first = i == 0, last = i + count == inputs;
    for (uint32_t o = outputs.begin, height; o < outputs.end; o += height) {
      height = rows > 1 && outputs.end - o >= tile_outputs ? tile_outputs : 1;
      const uint8_t* tile_weight = weight + ((uint64_t)o * inputs + i) * element;
      for (uint32_t t = 0, taken; t < rows; t += taken) {
        uint32_t left = rows - t;
        tile_function* multiply;
        if (height == 1) {
          taken = left >= tile_rows ? tile_rows : 1;
          multiply = taken == 1 ? tiles[record->dtype].one_output_one_row : tiles[record->dtype].one_output;
        } else {
          taken = left >= tile_rows ? tile_rows : left >= 2 ? 2 : 1;
          multiply = taken == tile_rows ? tiles[record->dtype].full
                     : taken == 2       ? tiles[record->dtype].two_rows
                                        : tiles[record->dtype].one_row;
        }
        float sums[tile_rows][tile_outputs];
        multiply(tile_weight, x + (uint64_t)t * inputs + i, inputs, count, sums);
        for (uint32_t r = 0; r < taken; r++) {
          for (uint32_t k = 0; k < height; k++) {
            uint64_t at = (uint64_t)(t + r) * width + o + k;
            float value = first ? sums[r][k] : out[at] + sums[r][k];
            if (last) {
              value = activate(record->function, value);
              if (multiplier) value *= multiplier[at];
              if (addend) value += addend[at];
            }
            out[at] = value;
          }
        }
      }
    }
  }
}
