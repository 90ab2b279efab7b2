// The two products of a matrix product's gradient: for its input, and for its weight.

#include "matmul.h"

NOT_INLINED void multiply_part(const struct product* product, struct range rows, struct range columns);
NOT_INLINED void multiply_share(const struct product* product, uint32_t thread, uint32_t threads);

#include "matmul_panel.c"

// dx[t][i] = sum over o of dout[t][o] * weight[o][i]
//   address: dout [rows, inputs], weight [inputs, width] of dtype, dx [rows, width]
static void transposed_matmul_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  struct product product = {
      .left = {.floats = floats(record->address[0]), .outer = record->inputs, .inner = 1},
      .right = {.weights = (const void*)(uintptr_t)record->address[1],
                .dtype = record->dtype,
                .outer = 1,
                .inner = record->width},
      .out = floats(record->address[2]),
      .rows = row_count(pass, record),
      .columns = record->width,
      .inner = record->inputs,
  };
  multiply_share(&product, thread, pass->thread_count);
}

// out[o][i] = sum over t of dout[t][o] * x[t][i]
//   address: x [input rows, width], dout [input rows, rows], out [rows, width]
static void weight_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  struct product product = {
      .left = {.floats = floats(record->address[1]), .outer = 1, .inner = record->rows},
      .right = {.weights = floats(record->address[0]), .dtype = DTYPE_F32, .outer = 1, .inner = record->width},
      .out = floats(record->address[2]),
      .rows = record->rows,
      .columns = record->width,
      .inner = input_row_count(pass, record),
  };
  multiply_share(&product, thread, pass->thread_count);
}
