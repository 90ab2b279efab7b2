// Matrix products with weights as they are stored: float32, binary16, bfloat16, or quantized in blocks. Arithmetic is
// float32, for quantized weights sums of integers. Threads share the outputs, so each weight is read by one thread.

#include "matmul.h"

#include "claims.h"
#include "matmul_floats.c"
#include "matmul_quantized.c"
#include "matmul_strips.c"
#include "matmul_super_blocks.c"
#include "matmul_tiles.c"

// Threads' shares are whole cache lines of outputs, so that none is written by two of them; and whole groups of
// quantized ones.
enum { output_grain = 16 };

static inline vfloat activate(uint32_t activation, vfloat x) {
  switch (activation) {
    case ACTIVATION_SIGMOID: return sigmoid_v(x);
    case ACTIVATION_RELU_SQUARED: return relu_squared(x);
    case ACTIVATION_TANH: return tanh_v(x);
    default: return x;
  }
}

static inline int is_many(uint32_t rows, uint32_t dtype) {
  return rows >= (uint32_t)(dtype == DTYPE_F32 ? many_float32_rows_from : many_rows_from);
}

// What a product ends with, for ranges of its outputs and rows: out = activation(out) * multiplier + addend
static void finish_outputs(const struct record* record, struct range outputs, struct range rows) {
  const float* multiplier = floats(record->address[2]);
  const float* addend = floats(record->address[3]);
  float* out = floats(record->address[4]);
  if (record->activation == ACTIVATION_NONE && !multiplier && !addend) return;
  for (uint32_t t = rows.begin; t < rows.end; t++) {
    for (uint32_t o = outputs.begin; o < outputs.end; o += lanes) {
      uint64_t at = (uint64_t)t * record->width + o;
      uint32_t left = outputs.end - o;
      vfloat value = activate(record->activation, load_up_to(out + at, left));
      if (multiplier) value *= load_up_to(multiplier + at, left);
      if (addend) value += load_up_to(addend + at, left);
      store_up_to(out + at, value, left);
    }
  }
}

static void multiply_outputs(const struct pass* pass, const struct record* record, struct range outputs, struct range rows) {
  if (rows.begin == rows.end || outputs.begin == outputs.end) return;
  const int may_take_tiles = record->dtype >= DTYPE_Q8 && record->dtype <= DTYPE_Q5K && rows.end >= tiles_from;
  if (pass->has_tiles && may_take_tiles) multiply_quantized_by_tiles(record, outputs, rows.end);
  else if (record->dtype >= DTYPE_Q4K) multiply_super_blocks(record, outputs, rows.end);
  else if (record->dtype >= DTYPE_Q8) multiply_quantized(record, outputs, rows.end);
  else if (is_many(rows.end - rows.begin, record->dtype)) multiply_many(record, outputs, rows);
  else multiply_few(record, outputs, rows);
  finish_outputs(record, outputs, rows);
}

// out[t][o] = activation(sum over i of weight[o][i] * x[t][i]) * multiplier[t][o] + addend[t][o]
//   address: x [rows, inputs] (for quantized weights the output of quantize_rows_forward), weight [width, inputs] of dtype,
//     multiplier, addend [rows, width] or 0, out [rows, width]
static void matmul_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  struct range rows = {0, row_count(pass, record)}, outputs = {0, record->width};
  // Where there are more rows than outputs, as in training, threads share the rows; else each weight is read by one
  // thread.
  if (rows.end > record->width && record->dtype < DTYPE_Q8) {
    rows = share_of(rows.end, 1, thread, pass->thread_count);
    multiply_outputs(pass, record, outputs, rows);
    return;
  }
  outputs = own_part_of(pass, record->width, output_grain, thread);
  do multiply_outputs(pass, record, outputs, rows);
  while (claim_piece(pass, record, record->width, output_grain, &outputs));
}
