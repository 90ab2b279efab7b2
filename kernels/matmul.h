// The parts of matmul.c: each computes the outputs of a range for all rows, without what the product ends with.
#pragma once

#include "kernels.h"
#include "simd.h"

KERNEL void multiply_vector(const struct record* record, struct range outputs);
KERNEL void multiply_tiles(const struct record* record, struct range outputs, uint32_t rows);
KERNEL void multiply_panels(const struct record* record, struct range outputs, uint32_t rows);
KERNEL void multiply_quantized(const struct record* record, struct range outputs, uint32_t rows);
