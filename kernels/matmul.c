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

// Found by trying 1, 2 and 4 streams and 0 to 8 KiB, in turn in one run, on Zen 5.
enum { max_streams = 2, prefetch_distance = 2048 };

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

// sums[r][o] = sum over i < count of weight[o][i] * x[r][i]; rows of both are `inputs` elements apart. The weights `next` bytes on
// are asked for meanwhile. Type, outputs and rows are constants where this is used, so that the loops over them are unrolled.
static inline __attribute__((always_inline)) void multiply_tile(
    const void* weight, uint32_t dtype, const float* x, uint64_t inputs, uint32_t count, uint64_t next, uint32_t outputs,
    uint32_t rows, float sums[][tile_outputs]) {
  vfloat partial[tile_rows][tile_outputs] = {0};
  uint32_t whole = count - count % lanes;
  for (uint32_t i = 0; i < whole; i += lanes) {
    vfloat w[tile_outputs];
    for (uint32_t o = 0; o < outputs; o++) {
      w[o] = load_weights(weight, dtype, o * inputs + i);
      __builtin_prefetch((const uint8_t*)weight + next + (o * inputs + i) * (dtype == DTYPE_F32 ? 4 : 2));
    }
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

// Outputs of one row, the product of decoding, which is as fast as weights come from memory. Several rows of the matrix that
// lie `apart` elements apart are read at once, as streams that the processor can fetch independently; they are asked for well
// ahead, since its own prefetching ends at every page. Each output has its own four sums, whatever the number of streams.
static inline __attribute__((always_inline)) void multiply_streams(
    const void* weight, uint32_t dtype, uint64_t apart, uint32_t streams, const float* x, uint32_t count, float* sums) {
  enum { parts = 4 };  // independent sums hide the latency of an addition
  const uint32_t element = dtype == DTYPE_F32 ? 4 : 2;
  vfloat partial[max_streams][parts] = {0};
  uint32_t i = 0;
  for (; i + parts * lanes <= count; i += parts * lanes) {
    for (uint32_t s = 0; s < streams; s++) {
      const uint8_t* ahead = (const uint8_t*)weight + (s * apart + i) * element + prefetch_distance;
      for (uint32_t line = 0; line < parts * lanes * element; line += 64) __builtin_prefetch(ahead + line);
    }
    for (uint32_t p = 0; p < parts; p++) {
      vfloat value = load(x + i + p * lanes);
      for (uint32_t s = 0; s < streams; s++) {
        partial[s][p] += load_weights(weight, dtype, s * apart + i + p * lanes) * value;
      }
    }
  }
  for (; i + lanes <= count; i += lanes) {
    for (uint32_t s = 0; s < streams; s++) partial[s][0] += load_weights(weight, dtype, s * apart + i) * load(x + i);
  }
  for (uint32_t s = 0; s < streams; s++) {
    sums[s] = sum((partial[s][0] + partial[s][1]) + (partial[s][2] + partial[s][3]));
    for (uint32_t k = i; k < count; k++) sums[s] += load_weight(weight, dtype, s * apart + k) * x[k];
  }
}

typedef void vector_function(const void* weight, uint64_t apart, const float* x, uint32_t count, float* sums);

#define DEFINE_VECTOR(name, dtype, streams)                                                                  \
  static void name(const void* weight, uint64_t apart, const float* x, uint32_t count, float* sums) {        \
    multiply_streams(weight, dtype, apart, streams, x, count, sums);                                         \
  }

DEFINE_VECTOR(vector_f32_1, DTYPE_F32, 1)
DEFINE_VECTOR(vector_f16_1, DTYPE_F16, 1)
DEFINE_VECTOR(vector_bf16_1, DTYPE_BF16, 1)
DEFINE_VECTOR(vector_f32_n, DTYPE_F32, max_streams)
DEFINE_VECTOR(vector_f16_n, DTYPE_F16, max_streams)
DEFINE_VECTOR(vector_bf16_n, DTYPE_BF16, max_streams)

// By type, as enum dtype numbers them.
static vector_function* const one_stream[] = {vector_f32_1, vector_f16_1, vector_bf16_1};
static vector_function* const all_streams[] = {vector_f32_n, vector_f16_n, vector_bf16_n};

typedef void tile_function(const void* weight, const float* x, uint64_t inputs, uint32_t count, uint64_t next,
                           float sums[][tile_outputs]);

#define DEFINE_TILE(name, dtype, outputs, rows)                                                               \
  static void name(const void* weight, const float* x, uint64_t inputs, uint32_t count, uint64_t next,        \
                   float sums[][tile_outputs]) {                                                              \
    multiply_tile(weight, dtype, x, inputs, count, next, outputs, rows, sums);                                \
  }
#define DEFINE_TILES(name, dtype)                         \
  DEFINE_TILE(name##_1x1, dtype, 1, 1)                    \
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

// What a product ends with: activation(value) * multiplier + addend, at one place of the output.
static inline void finish_output(const struct record* record, uint64_t at, float value) {
  const float* multiplier = floats(record->address[2]);
  const float* addend = floats(record->address[3]);
  value = activate(record->function, value);
  if (multiplier) value *= multiplier[at];
  if (addend) value += addend[at];
  floats(record->address[4])[at] = value;
}

static void multiply_one_row(const struct record* record, struct range outputs) {
  const uint8_t* weight = (const uint8_t*)(uintptr_t)record->address[0];
  const float* x = floats(record->address[1]);
  uint32_t inputs = record->inputs;
  uint64_t row = (uint64_t)inputs * (record->dtype == DTYPE_F32 ? 4 : 2);
  uint32_t apart = (outputs.end - outputs.begin) / max_streams;
  float sums[max_streams];
  for (uint32_t i = 0; i < apart; i++) {
    uint32_t first = outputs.begin + i;
    all_streams[record->dtype](weight + first * row, (uint64_t)apart * inputs, x, inputs, sums);
    for (uint32_t s = 0; s < max_streams; s++) finish_output(record, first + s * apart, sums[s]);
  }
  for (uint32_t o = outputs.begin + max_streams * apart; o < outputs.end; o++) {
    one_stream[record->dtype](weight + o * row, 0, x, inputs, sums);
    finish_output(record, o, sums[0]);
  }
}

// out[t][o] = activation(sum over i of weight[o][i] * x[t][i]) * multiplier[t][o] + addend[t][o]
//   address: weight [width, inputs] of dtype, x [rows, inputs], multiplier, addend [rows, width] or 0, out [rows, width]
void matmul_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const uint8_t* weight = (const uint8_t*)(uintptr_t)record->address[0];
  const float* x = floats(record->address[1]);
  float* out = floats(record->address[4]);
  uint32_t width = record->width;
  uint32_t inputs = record->inputs;
  uint32_t rows = row_count(pass, record);
  uint64_t element = record->dtype == DTYPE_F32 ? 4 : 2;
  uint32_t block = rows > tile_rows ? input_block : inputs;
  struct range outputs = share_of(width, tile_outputs, thread, pass->thread_count);
  if (rows == 1) return multiply_one_row(record, outputs);

  for (uint32_t i = 0; i < inputs; i += block) {
    uint32_t count = inputs - i < block ? inputs - i : block;
    uint32_t first = i == 0, last = i + count == inputs;
    for (uint32_t o = outputs.begin, height; o < outputs.end; o += height) {
      height = outputs.end - o >= tile_outputs ? tile_outputs : 1;
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
        uint64_t next = t == 0 ? height * inputs * element : 0;  // the next outputs' weights, once
        multiply(tile_weight, x + (uint64_t)t * inputs + i, inputs, count, next, sums);
        for (uint32_t r = 0; r < taken; r++) {
          for (uint32_t k = 0; k < height; k++) {
            uint64_t at = (uint64_t)(t + r) * width + o + k;
            float value = first ? sums[r][k] : out[at] + sums[r][k];
            if (last) finish_output(record, at, value);
            else out[at] = value;
          }
        }
      }
    }
  }
}
