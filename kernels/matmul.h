// The parts of matmul.c: each computes the outputs of a range for some rows, without what the product ends with. And
// products of two matrices, which training shares.
#pragma once

#include "kernels.h"
#include "simd.h"

// A matrix of floats; `outer` floats from row to row, `inner` from one element of a row to the next: one of them is 1.
struct left_matrix {
  const float* floats;
  uint64_t outer, inner;
};

// A matrix of any type, its columns `outer` elements apart, the elements of a column `inner`: one of them is 1.
struct right_matrix {
  const void* weights;
  uint32_t dtype;
  uint64_t outer, inner;
};

// out [rows, columns] = left [rows, inner] * right [inner, columns]
struct product {
  struct left_matrix left;
  struct right_matrix right;
  float* out;
  uint32_t rows, columns, inner;
};

NOT_INLINED void multiply_few(const struct record* record, struct range outputs, struct range rows);
NOT_INLINED void multiply_many(const struct record* record, struct range outputs, struct range rows);
NOT_INLINED void multiply_quantized(const struct record* record, struct range outputs, uint32_t rows);
NOT_INLINED void multiply_super_blocks(const struct record* record, struct range outputs, uint32_t rows);
