// Values to blocks of integers with a scale: rows of x before a product with quantized weights, and weights when a model is
// loaded.

#include "kernels.h"
#include "load_weights.h"
#include "quantized.h"
#include "simd.h"

typedef int8_t vtiny __attribute__((vector_size(LANES)));

// A block of x: scale = largest magnitude / 127, integers to nearest, ties to even. A value that is not finite makes the scale
// NaN, so that it is not lost.
static void quantize_block(const float* x, int8_t* quant, float* scale, int32_t* sum_of_quants) {
  vfloat largest = {0}, poison = {0};
  for (uint32_t i = 0; i < block_inputs; i += lanes) {
    vfloat value = load(x + i);
    largest = maximum(largest, choose(value < 0, -value, value));
    poison += value - value;
  }
  float part[lanes], most = 0;
  store(part, largest);
  for (uint32_t i = 0; i < lanes; i++) most = part[i] > most ? part[i] : most;
  vfloat inverse = splat(most > 0 ? 127 / most : 0);
  vint total = {0};
  for (uint32_t i = 0; i < block_inputs; i += lanes) {
    vint rounded = round_to_int(load(x + i) * inverse);
    total += rounded;
    vtiny bytes = __builtin_convertvector(rounded, vtiny);
    __builtin_memcpy(quant + i, &bytes, sizeof bytes);
  }
  *sum_of_quants = 0;
  for (uint32_t i = 0; i < lanes; i++) *sum_of_quants += total[i];
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
      quantize_block(x + b * block_inputs, quant, scales + 2 * pair + b, sums + 2 * pair + b);
    }
  }
}

// The scale of a block with a value that is not finite, whose integers are 0: so it is not lost, and not taken for a number.
enum { f16_nan = 0x7e00 };

// float32 to binary16, to nearest, ties to even; scales past its range become its largest number.
static uint16_t float_to_f16(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7bff);
  if (magnitude < 0x38800000) {
    // Subnormal: adding 0.5 moves the mantissa to where float32 itself rounds it to the right bit.
    float moved;
    __builtin_memcpy(&moved, &magnitude, 4);
    moved += 0.5f;
    __builtin_memcpy(&bits, &moved, 4);
    return (uint16_t)(sign | (bits - 0x3f000000));
  }
  return (uint16_t)(sign | ((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13));
}

// The value of largest magnitude, with its sign; of equals the first. NaN where one is not finite.
static float extreme_of(const float* w) {
  float extreme = 0;
  for (uint32_t i = 0; i < block_inputs; i++) {
    if (!(__builtin_fabsf(w[i]) <= 3.40282347e38f)) return __builtin_nanf("");
    if (__builtin_fabsf(w[i]) > __builtin_fabsf(extreme)) extreme = w[i];
  }
  return extreme;
}

// As ggml's quantize_row_q8_0: scale = largest magnitude / 127, integers to nearest, halves away from 0.
static uint16_t quantize_q8(const float* w, int8_t quant[block_inputs]) {
  float extreme = extreme_of(w), scale = __builtin_fabsf(extreme) / 127;
  float inverse = scale > 0 ? 1 / scale : 0;
  for (uint32_t i = 0; i < block_inputs; i++) quant[i] = 0;
  if (extreme != extreme) return f16_nan;
  for (uint32_t i = 0; i < block_inputs; i++) {
    float scaled = w[i] * inverse;
    quant[i] = (int8_t)(int32_t)(scaled + (scaled < 0 ? -0.5f : 0.5f));
  }
  return float_to_f16(scale);
}

enum { q4_candidates = 16, partial_sums = 8 };

// ggml takes for Q4_0 the scale at which the largest magnitude becomes -8. A scale somewhat smaller or larger often fits the
// block better: of `q4_candidates` the one is taken that leaves the least sum of squared errors when the scale is then chosen
// by least squares, sum of w q / sum of q². The error is sum of w² - (sum of w q)² / sum of q², so the last term is compared.
// Sums are in float64, in which these products are exact, and of a fixed order: every machine chooses the same.
static uint16_t quantize_q4(const float* w, int8_t quant[block_inputs]) {
  float extreme = extreme_of(w);
  double best = 0, best_scale = 0;
  for (uint32_t i = 0; i < block_inputs; i++) quant[i] = 0;
  if (extreme != extreme) return f16_nan;
  for (uint32_t c = 0; c < q4_candidates && extreme != 0; c++) {
    float inverse = -(6.5f + 0.2f * (float)c) / extreme;
    int32_t rounded[block_inputs];
    double products[partial_sums] = {0};
    int32_t squares = 0;
    for (uint32_t i = 0; i < block_inputs; i += lanes) {
      vfloat scaled = load(w + i) * inverse;
      scaled = choose(scaled < -8.0f, splat(-8), choose(scaled > 7.0f, splat(7), scaled));
      vint q = round_to_int(scaled);
      __builtin_memcpy(rounded + i, &q, sizeof q);
    }
    for (uint32_t i = 0; i < block_inputs; i += partial_sums) {
      for (uint32_t k = 0; k < partial_sums; k++) products[k] += (double)w[i + k] * (double)rounded[i + k];
    }
    for (uint32_t i = 0; i < block_inputs; i++) squares += rounded[i] * rounded[i];
    double product = ((products[0] + products[1]) + (products[2] + products[3])) +
                     ((products[4] + products[5]) + (products[6] + products[7]));
    double fit = product * product / (double)squares;
    if (squares > 0 && fit > best) {
      best = fit;
      best_scale = product / (double)squares;
      for (uint32_t i = 0; i < block_inputs; i++) quant[i] = (int8_t)rounded[i];
    }
  }
  return float_to_f16((float)best_scale);
}

static void load_block(const struct record* record, uint32_t row, uint32_t from, float w[block_inputs]) {
  const void* weights = (const void*)(uintptr_t)record->address[0];
  uint64_t at = (uint64_t)row * record->inputs + from;
  for (uint32_t i = 0; i < block_inputs; i++) {
    int inside = row < record->width && from + i < record->inputs;
    w[i] = inside ? load_weight(weights, record->dtype, at + i) : 0;
  }
}

// out = the matrix in blocks, of the type `function`
//   address: matrix [width, inputs] of dtype, out [groups]; threads share the groups
static void quantize_weights(const struct pass* pass, const struct record* record, uint32_t thread) {
  uint32_t pairs = pairs_of(record->inputs);
  uint32_t groups = (record->width + group_outputs - 1) / group_outputs;
  struct range range = share_of(groups, 1, thread, pass->thread_count);
  for (uint32_t g = range.begin; g < range.end; g++) {
    for (uint32_t r = 0; r < group_outputs; r++) {
      for (uint32_t block = 0; block < 2 * pairs; block++) {
        uint64_t at = (uint64_t)g * pairs + block / 2;
        uint32_t b = block % 2;
        float w[block_inputs];
        int8_t quant[block_inputs];
        load_block(record, g * group_outputs + r, block * block_inputs, w);
        if (record->function == DTYPE_Q8) {
          struct q8_pair* pair = (struct q8_pair*)(uintptr_t)record->address[1] + at;
          pair->scale[b][r] = quantize_q8(w, quant);
          for (uint32_t i = 0; i < block_inputs; i++) pair->quant[b][i / 4][r][i % 4] = quant[i];
        } else {
          struct q4_pair* pair = (struct q4_pair*)(uintptr_t)record->address[1] + at;
          pair->scale[b][r] = quantize_q4(w, quant);
          for (uint32_t i = 0; i < block_inputs / 2; i++) {
            pair->quant[b][i / 4][r][i % 4] = (uint8_t)((quant[i] + 8) | (quant[i + 16] + 8) << 4);
          }
        }
      }
    }
  }
}
