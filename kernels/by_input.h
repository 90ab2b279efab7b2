// The layout of matrices that lie input by input, for products with rows that are mostly zeros: the weights of an input whose
// value is zero need not be read. src/backends/kernel/by-input.ts has the sizes.
//
// The weights of one input to all outputs are a row of whole cache lines; outputs that fill the last one are zeros. Rows that
// would be a multiple of 1 KiB apart, for which caches have few places, have a line more. Quantized weights have the integers and
// scales of quantized.h, block by block of 32 inputs: the scales of all outputs, then a row for each input. A byte of q8 is one
// output; of q4, of every 32 outputs, one of the first 16 in its lower half, and the one 16 after it in its upper half. Inputs that
// are missing from the last two blocks are zeros.
#pragma once

#include "load_weights.h"
#include "quantized.h"

enum { line_bytes = 64, conflicting_lines = 16 };

// Outputs that are taken together: their sums, of floats for each lane, lie in the first cache.
enum { sparse_outputs = 512 };

static inline int is_float(uint32_t dtype) { return dtype < DTYPE_Q8; }

// Outputs of a cache line of a row. Threads share whole lines.
static inline uint32_t outputs_of_line(uint32_t dtype) {
  if (is_float(dtype)) return line_bytes / (uint32_t)element_size(dtype);
  return dtype == DTYPE_Q8 ? line_bytes : 2 * line_bytes;
}

static inline uint32_t padded_outputs(uint32_t outputs, uint32_t dtype) {
  const uint32_t line = outputs_of_line(dtype);
  return (outputs + line - 1) / line * line;
}

// Bytes of the row of one input.
static inline uint64_t input_row_size(uint32_t outputs, uint32_t dtype) {
  const uint32_t lines = padded_outputs(outputs, dtype) / outputs_of_line(dtype);
  return (uint64_t)(lines % conflicting_lines == 0 ? lines + 1 : lines) * line_bytes;
}

// Bytes of the scales of one block of inputs, and of all of the block.
static inline uint64_t block_scales_size(uint32_t outputs, uint32_t dtype) {
  return (uint64_t)padded_outputs(outputs, dtype) * 2;
}
static inline uint64_t input_block_size(uint32_t outputs, uint32_t dtype) {
  return block_scales_size(outputs, dtype) + block_inputs * input_row_size(outputs, dtype);
}
