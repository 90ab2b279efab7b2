// Products of rows and of small tiles: what attention of every kind and recurrent steps come down to.
#pragma once

#include "simd.h"

static inline float dot_product(const float* a, const float* b, uint32_t count) {
  vfloat total = {0};
  uint32_t whole = count - count % lanes;
  for (uint32_t i = 0; i < whole; i += lanes) total += load(a + i) * load(b + i);
  float result = sum(total);
  for (uint32_t i = whole; i < count; i++) result += a[i] * b[i];
  return result;
}

// to += factor * from
static inline void add_scaled(float* to, const float* from, float factor, uint32_t count) {
  for (uint32_t i = 0; i < count; i += lanes) {
    uint32_t left = count - i;
    store_up_to(to + i, load_up_to(to + i, left) + load_up_to(from + i, left) * factor, left);
  }
}

// Elements of a tile: (i, j) is at[i * row + j * column].
struct tile {
  const float* at;
  uint64_t row, column;
};

// Sums of this many rows are in registers together.
enum { rows_together = 4 };

static inline __attribute__((always_inline)) void add_tile_part(float* out, uint64_t out_row, struct tile left,
                                                                const float* right, uint64_t right_row, uint32_t depth,
                                                                uint32_t columns, int rows, int vectors) {
  vfloat sums[rows_together][2];
  for (int i = 0; i < rows; i++) {
    for (int v = 0; v < vectors; v++) sums[i][v] = load_up_to(out + i * out_row + v * lanes, columns);
  }
  for (uint32_t k = 0; k < depth; k++) {
    vfloat factors[2];
    for (int v = 0; v < vectors; v++) factors[v] = load_up_to(right + k * right_row + v * lanes, columns);
    for (int i = 0; i < rows; i++) {
      vfloat element = splat(left.at[i * left.row + k * left.column]);
      for (int v = 0; v < vectors; v++) sums[i][v] = multiply_add(element, factors[v], sums[i][v]);
    }
  }
  for (int i = 0; i < rows; i++) {
    for (int v = 0; v < vectors; v++) store_up_to(out + i * out_row + v * lanes, sums[i][v], columns);
  }
}

static inline __attribute__((always_inline)) void add_tile_rows(float* out, uint64_t out_row, struct tile left,
                                                                const float* right, uint64_t right_row, uint32_t depth,
                                                                uint32_t columns, int rows) {
  uint32_t c = 0;
  for (; c + 2 * lanes <= columns; c += 2 * lanes) {
    add_tile_part(out + c, out_row, left, right + c, right_row, depth, 2 * lanes, rows, 2);
  }
  for (; c < columns; c += lanes)
    add_tile_part(out + c, out_row, left, right + c, right_row, depth, columns - c, rows, 1);
}

// out[i][j] += sum over k of left (i, k) * right[k][j]; left is rows x depth, right depth x columns. The rows of out
// and right are so far apart as given.
static __attribute__((noinline)) void add_tile_product(float* out, uint64_t out_row, struct tile left,
                                                       const float* right, uint64_t right_row, uint32_t rows,
                                                       uint32_t depth, uint32_t columns) {
  uint32_t i = 0;
  for (; i + rows_together <= rows; i += rows_together) {
    struct tile part = {left.at + i * left.row, left.row, left.column};
    add_tile_rows(out + i * out_row, out_row, part, right, right_row, depth, columns, rows_together);
  }
  for (; i < rows; i++) {
    struct tile part = {left.at + i * left.row, left.row, left.column};
    add_tile_rows(out + i * out_row, out_row, part, right, right_row, depth, columns, 1);
  }
}
