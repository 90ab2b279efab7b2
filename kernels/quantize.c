// Rows of x to blocks of integers with a scale, before a product with quantized weights.

#include "kernels.h"
#include "quantized.h"
#include "simd.h"

typedef int8_t vtiny __attribute__((vector_size(LANES)));

// A block of x: scale = largest magnitude / 127, integers to nearest, ties to even. A value that is not finite makes the scale
// NaN, so that it is not lost.
static void quantize_block(const float* x, int8_t* quant, float* scale, int32_t sums_of_halves[2]) {
  vfloat largest = {0}, poison = {0};
  for (uint32_t i = 0; i < block_inputs; i += lanes) {
    largest = maximum(largest, magnitude_of(load(x + i)));
    poison += load(x + i) - load(x + i);
  }
  const float most = largest_lane(largest);
  vfloat inverse = splat(most > 0 ? 127 / most : 0);
  for (uint32_t half = 0; half < 2; half++) {
    vint total = {0};
    for (uint32_t i = half * block_inputs / 2; i < (half + 1) * block_inputs / 2; i += lanes) {
      vint rounded = round_to_int(load(x + i) * inverse);
      total += rounded;
      vtiny bytes = __builtin_convertvector(rounded, vtiny);
      __builtin_memcpy(quant + i, &bytes, sizeof bytes);
    }
    sums_of_halves[half] = sum_of_ints(total);
  }
  *scale = most / 127 + sum(poison);
}

// out[t] = x[t] in blocks of 8 bits; quantized.h has the layout
//   address: x [rows, inputs], out [rows, width]; threads share the inputs
static void quantize_rows_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  uint32_t pairs = pairs_of(record->inputs);
  struct range inputs = channels_of(record->inputs, thread, pass->thread_count);
  uint32_t own = pairs_of(inputs.end - inputs.begin);
  for (uint32_t i = 0; i < row_count(pass, record) * own; i++) {
    uint32_t t = i / own, pair = inputs.begin / pair_inputs + i % own;
    const float* x = floats(record->address[0]) + (uint64_t)t * record->inputs + pair * pair_inputs;
    int8_t* row = (int8_t*)floats(record->address[1]) + t * quantized_row_size(pairs);
    uint32_t left = record->inputs - pair * pair_inputs;
    float padded[pair_inputs] = {0};
    if (left < pair_inputs) {
      for (uint32_t k = 0; k < left; k++) padded[k] = x[k];
      x = padded;
    }
    float* scales = (float*)row_scales(row, pairs);
    int32_t* sums = (int32_t*)row_sums(row, pairs);
    for (uint32_t b = 0; b < 2; b++) {
      int8_t* quant = row + pair * pair_inputs + b * block_inputs;
      quantize_block(x + b * block_inputs, quant, scales + 2 * pair + b, sums + 2 * (2 * pair + b));
    }
  }
}
