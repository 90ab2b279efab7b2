// Products of a few rows, those of several sequences decoding together: still bound by reading weights. The work is cut into
// tiles of a few outputs by a few rows whose sums stay in registers: a loaded vector of weights then serves every row of the
// tile, a loaded vector of x every output.

#include "load_weights.h"
#include "matmul.h"

#if LANES == 16
enum { tile_outputs = 4, tile_rows = 6 };  // 24 sums and 5 operands in 32 registers
#else
enum { tile_outputs = 2, tile_rows = 4 };  // 8 sums and 3 operands in 16 registers
#endif

// sums[r][o] = sum over i < inputs of weight[o][i] * x[r][i]. The weights `next` bytes on are asked for meanwhile. Type, outputs
// and rows are constants where this is used, so that the loops over them are unrolled.
static inline __attribute__((always_inline)) void multiply_tile(const void* weight, uint32_t dtype, const float* x,
                                                                uint64_t inputs, uint64_t next, uint32_t outputs,
                                                                uint32_t rows, float sums[][tile_outputs]) {
  vfloat partial[tile_rows][tile_outputs] = {0};
  uint32_t whole = (uint32_t)(inputs - inputs % lanes);
  for (uint32_t i = 0; i < whole; i += lanes) {
    vfloat w[tile_outputs];
    for (uint32_t o = 0; o < outputs; o++) {
      w[o] = load_weights(weight, dtype, o * inputs + i);
      __builtin_prefetch((const uint8_t*)weight + next + (o * inputs + i) * element_size(dtype));
    }
    for (uint32_t r = 0; r < rows; r++) {
      vfloat value = load(x + r * inputs + i);
      for (uint32_t o = 0; o < outputs; o++) partial[r][o] = multiply_add(w[o], value, partial[r][o]);
    }
  }
  for (uint32_t r = 0; r < rows; r++) {
    for (uint32_t o = 0; o < outputs; o++) {
      sums[r][o] = sum(partial[r][o]);
      for (uint32_t i = whole; i < inputs; i++) sums[r][o] += load_weight(weight, dtype, o * inputs + i) * x[r * inputs + i];
    }
  }
}

typedef void tile_function(const void* weight, const float* x, uint64_t inputs, uint64_t next, float sums[][tile_outputs]);

#define DEFINE_TILE(name, dtype, outputs, rows)                                                  \
  static void name(const void* weight, const float* x, uint64_t inputs, uint64_t next,           \
                   float sums[][tile_outputs]) {                                                 \
    multiply_tile(weight, dtype, x, inputs, next, outputs, rows, sums);                          \
  }
#define DEFINE_TILES(name, dtype)                    \
  DEFINE_TILE(name##_1x1, dtype, 1, 1)               \
  DEFINE_TILE(name##_1xn, dtype, 1, tile_rows)       \
  DEFINE_TILE(name##_nx1, dtype, tile_outputs, 1)    \
  DEFINE_TILE(name##_nx2, dtype, tile_outputs, 2)    \
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

static tile_function* tile_for(uint32_t dtype, uint32_t outputs, uint32_t rows) {
  if (outputs == 1) return rows == 1 ? tiles[dtype].one_output_one_row : tiles[dtype].one_output;
  return rows == tile_rows ? tiles[dtype].full : rows == 2 ? tiles[dtype].two_rows : tiles[dtype].one_row;
}

static void multiply_tiles(const struct record* record, struct range outputs, uint32_t rows) {
  const uint8_t* weight = (const uint8_t*)(uintptr_t)record->address[0];
  const float* x = floats(record->address[1]);
  float* out = floats(record->address[4]);
  uint32_t inputs = record->inputs;
  uint64_t row = inputs * element_size(record->dtype);
  for (uint32_t o = outputs.begin, height; o < outputs.end; o += height) {
    height = outputs.end - o >= tile_outputs ? tile_outputs : 1;
    for (uint32_t t = 0, taken; t < rows; t += taken) {
      uint32_t left = rows - t;
      taken = left >= tile_rows ? tile_rows : left >= 2 && height > 1 ? 2 : 1;
      uint64_t next = t == 0 ? height * row : 0;  // the next outputs' weights, once
      float sums[tile_rows][tile_outputs];
      tile_for(record->dtype, height, taken)(weight + o * row, x + (uint64_t)t * inputs, inputs, next, sums);
      for (uint32_t r = 0; r < taken; r++) {
        for (uint32_t k = 0; k < height; k++) out[(uint64_t)(t + r) * record->width + o + k] = sums[r][k];
      }
    }
  }
}
