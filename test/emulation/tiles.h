// The instructions for tiles (kernels/tiles.h) in C, for processors without them: included before the kernels by cc.mjs. Slow; meant
// for tests only.
#pragma once

#include <stdint.h>
#include <string.h>

#define TILES_ARE_EMULATED

struct tile_sizes;

static inline int tiles_are_allowed(void) { return 1; }

// Sizes as the instruction reads them from memory; what each tile's rows and bytes are is kept for the thread that set them.
static _Thread_local uint8_t emulated_sizes[64];

static inline void set_tile_sizes(const struct tile_sizes* sizes) { memcpy(emulated_sizes, sizes, 64); }
static inline void release_tiles(void) { memset(emulated_sizes, 0, 64); }

static inline uint32_t emulated_row_bytes(uint32_t tile) { return emulated_sizes[16 + 2 * tile] | emulated_sizes[17 + 2 * tile] << 8; }
static inline uint32_t emulated_rows(uint32_t tile) { return emulated_sizes[48 + tile]; }

// The sizes must fit each other, or the processor would refuse.
static inline void emulated_tile_product(uint32_t sum, uint32_t left, uint32_t right, const int8_t* x, uint64_t stride,
                                         const int8_t* weights, int32_t* totals) {
  const uint32_t rows = emulated_rows(sum), outputs = emulated_row_bytes(sum) / 4, inputs = emulated_row_bytes(left);
  if (emulated_sizes[0] != 1 || rows == 0 || rows > 16 || rows != emulated_rows(left) || inputs > 64 ||
      inputs != 4 * emulated_rows(right) || emulated_row_bytes(right) != 4 * outputs || outputs > 16) {
    __builtin_trap();
  }
  for (uint32_t r = 0; r < rows; r++) {
    for (uint32_t o = 0; o < outputs; o++) {
      int32_t total = 0;
      for (uint32_t k = 0; k < inputs; k++) total += x[r * stride + k] * weights[k / 4 * 64 + 4 * o + k % 4];
      totals[16 * r + o] = total;
    }
  }
}

static inline void first_tile_product(const int8_t* x, uint64_t stride, const int8_t* weights, int32_t* totals) {
  emulated_tile_product(0, 2, 4, x, stride, weights, totals);
}
static inline void second_tile_product(const int8_t* x, uint64_t stride, const int8_t* weights, int32_t* totals) {
  emulated_tile_product(1, 3, 5, x, stride, weights, totals);
}
