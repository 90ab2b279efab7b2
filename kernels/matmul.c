// Matrix products with weights as they are stored: float32, binary16, bfloat16, or quantized in blocks. Arithmetic is float32,
// for quantized weights sums of integers. Threads share the outputs, so each weight is read by one thread.

#include "matmul.h"

#include "matmul_panel.c"
#include "matmul_quantized.c"
#include "matmul_tile.c"
#include "matmul_vector.c"

// Threads' shares are whole cache lines of outputs, so that none is written by two of them; and whole groups of quantized ones.
enum { output_grain = 16 };

// From how many rows on filling panels pays.
enum { panel_rows_from = 16 };

static inline vfloat activate(uint32_t activation, vfloat x) {
  switch (activation) {
    case ACTIVATION_SIGMOID: return sigmoid_v(x);
    case ACTIVATION_RELU_SQUARED: return relu_squared(x);
    default: return x;
  }
}

// What a product ends with, for ranges of its outputs and rows: out = activation(out) * multiplier + addend
static void finish_outputs(const struct record* record, struct range outputs, struct range rows) {
  const float* multiplier = floats(record->address[2]);
  const float* addend = floats(record->address[3]);
  float* out = floats(record->address[4]);
  if (record->function == ACTIVATION_NONE && !multiplier && !addend) return;
  for (uint32_t t = rows.begin; t < rows.end; t++) {
    for (uint32_t o = outputs.begin; o < outputs.end; o += lanes) {
      uint64_t at = (uint64_t)t * record->width + o;
      uint32_t left = outputs.end - o;
      vfloat value = activate(record->function, load_up_to(out + at, left));
      if (multiplier) value *= load_up_to(multiplier + at, left);
      if (addend) value += load_up_to(addend + at, left);
      store_up_to(out + at, value, left);
    }
  }
}

// Many rows: shared among threads where there are more of them than outputs, as in training; else each weight is read by one.
static void multiply_many(const struct record* record, uint32_t rows, uint32_t thread, uint32_t threads) {
  struct product product = {
      .left = {.floats = floats(record->address[1]), .outer = record->inputs, .inner = 1},
      .right = {.weights = (const void*)(uintptr_t)record->address[0], .dtype = record->dtype, .outer = record->inputs, .inner = 1},
      .out = floats(record->address[4]),
      .rows = rows,
      .columns = record->width,
      .inner = record->inputs,
  };
  struct range some = {0, rows}, outputs = {0, record->width};
  if (rows > record->width) some = share_of(rows, panel_rows, thread, threads);
  else outputs = share_of(record->width, output_grain, thread, threads);
  if (some.begin == some.end || outputs.begin == outputs.end) return;
  multiply_part(&product, some, outputs);
  finish_outputs(record, outputs, some);
}

// out[t][o] = activation(sum over i of weight[o][i] * x[t][i]) * multiplier[t][o] + addend[t][o]
//   address: weight [width, inputs] of dtype, x [rows, inputs] (for quantized weights the output of
//     quantize_rows_forward), multiplier, addend [rows, width] or 0, out [rows, width]
static void matmul_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  uint32_t rows = row_count(pass, record);
  if (rows >= panel_rows_from && record->dtype < DTYPE_Q8) return multiply_many(record, rows, thread, pass->thread_count);
  struct range outputs = share_of(record->width, output_grain, thread, pass->thread_count);
  if (rows == 0 || outputs.begin == outputs.end) return;
  if (record->dtype >= DTYPE_Q8) multiply_quantized(record, outputs, rows);
  else if (rows == 1) multiply_vector(record, outputs);
  else multiply_tiles(record, outputs, rows);
  finish_outputs(record, outputs, (struct range){0, rows});
}
