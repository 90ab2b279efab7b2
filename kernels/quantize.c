// Values to blocks of integers with a scale: rows of x before a product with quantized weights, and weights when a model is
// loaded.

#include "kernels.h"
#include "load_weights.h"
#include "quantized.h"
#include "simd.h"

typedef int8_t vtiny __attribute__((vector_size(LANES)));

static vfloat magnitude_of(vfloat x) { return choose(x < 0, -x, x); }

// A block of x: scale = largest magnitude / 127, integers to nearest, ties to even. A value that is not finite makes the scale
// NaN, so that it is not lost.
static void quantize_block(const float* x, int8_t* quant, float* scale, int32_t* sum_of_quants) {
  vfloat largest = {0}, poison = {0};
  for (uint32_t i = 0; i < block_inputs; i += lanes) {
    largest = maximum(largest, magnitude_of(load(x + i)));
    poison += load(x + i) - load(x + i);
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
  vfloat largest = {0}, poison = {0};
  for (uint32_t i = 0; i < block_inputs; i += lanes) {
    largest = maximum(largest, magnitude_of(load(w + i)));
    poison += load(w + i) - load(w + i);
  }
  float most = 0;
  for (uint32_t k = 0; k < lanes; k++) most = largest[k] > most ? largest[k] : most;
  if (sum(poison) != 0) return __builtin_nanf("");
  uint32_t at = 0;
  while (__builtin_fabsf(w[at]) != most) at++;
  return w[at];
}

// As ggml's quantize_row_q8_0: scale = largest magnitude / 127, integers to nearest.
static uint16_t quantize_q8(const float* w, int8_t quant[block_inputs]) {
  float extreme = extreme_of(w), scale = __builtin_fabsf(extreme) / 127;
  __builtin_memset(quant, 0, block_inputs);
  if (extreme != extreme) return f16_nan;
  float inverse = scale > 0 ? 1 / scale : 0;
  for (uint32_t i = 0; i < block_inputs; i += lanes) {
    vtiny bytes = __builtin_convertvector(round_to_int(load(w + i) * inverse), vtiny);
    __builtin_memcpy(quant + i, &bytes, sizeof bytes);
  }
  return float_to_f16(scale);
}

enum { q4_candidates = 8, partial_sums = 8 };

// Below this a scale is 0 in binary16.
static const float least_extreme = 1e-20f;

static vfloat to_float(vint x) { return __builtin_convertvector(x, vfloat); }

static vint round_to_q4(vfloat scaled) {
  return round_to_int(choose(scaled < -8.0f, splat(-8), choose(scaled > 7.0f, splat(7), scaled)));
}

// ggml takes for Q4_0 the scale at which the largest magnitude becomes -8. A scale somewhat smaller or larger often fits the
// block better: of `q4_candidates` the one is taken that leaves the least sum of squared errors when the scale is then chosen
// by least squares, sum of w q / sum of q². The error is sum of w² - (sum of w q)² / sum of q², so the last term is compared.
// For that w is rounded to integers of 16 bits, whose sums float32 holds exactly; the scale itself is of float64 sums in a fixed
// order. So every machine chooses the same.
static uint16_t quantize_q4(const float* w, int8_t quant[block_inputs]) {
  float extreme = extreme_of(w), largest = __builtin_fabsf(extreme);
  __builtin_memset(quant, 0, block_inputs);
  if (extreme != extreme) return f16_nan;
  if (largest < least_extreme) return 0;
  enum { vectors = block_inputs / lanes };
  vfloat whole[vectors];
  for (uint32_t v = 0; v < vectors; v++) whole[v] = to_float(round_to_int(load(w + v * lanes) * (32767 / largest)));
  double best = 0;
  float best_inverse = 0;
  for (uint32_t c = 0; c < q4_candidates; c++) {
    float inverse = -(6.5f + 0.4f * (float)c) / extreme;
    vfloat products = {0}, squares = {0};
    for (uint32_t v = 0; v < vectors; v++) {
      vfloat q = to_float(round_to_q4(load(w + v * lanes) * inverse));
      products += q * whole[v];
      squares += q * q;
    }
    double product = (double)sum(products), fit = product * product / (double)sum(squares);
    if (fit > best) {
      best = fit;
      best_inverse = inverse;
    }
  }
  double products[partial_sums] = {0};
  int32_t squares = 0;
  for (uint32_t v = 0; v < vectors; v++) {
    vtiny bytes = __builtin_convertvector(round_to_q4(load(w + v * lanes) * best_inverse), vtiny);
    __builtin_memcpy(quant + v * lanes, &bytes, sizeof bytes);
  }
  for (uint32_t i = 0; i < block_inputs; i++) {
    products[i % partial_sums] += (double)w[i] * (double)quant[i];
    squares += quant[i] * quant[i];
  }
  double product = ((products[0] + products[1]) + (products[2] + products[3])) +
                   ((products[4] + products[5]) + (products[6] + products[7]));
  return float_to_f16((float)(product / (double)squares));
}

static inline __attribute__((always_inline)) void load_block(const struct record* record, uint32_t dtype, uint32_t row,
                                                             uint32_t from, float w[block_inputs]) {
  const void* weights = (const void*)(uintptr_t)record->address[0];
  uint64_t at = (uint64_t)row * record->inputs + from;
  if (row < record->width && from + block_inputs <= record->inputs) {
    for (uint32_t i = 0; i < block_inputs; i += lanes) store(w + i, load_weights(weights, dtype, at + i));
    return;
  }
  for (uint32_t i = 0; i < block_inputs; i++) {
    int inside = row < record->width && from + i < record->inputs;
    w[i] = inside ? load_weight(weights, dtype, at + i) : 0;
  }
}

static inline __attribute__((always_inline)) void quantize_block_of_weights(const struct record* record, uint32_t dtype,
                                                                            uint32_t group, uint32_t row, uint32_t block) {
  uint64_t at = (uint64_t)group * pairs_of(record->inputs) + block / 2;
  uint32_t b = block % 2;
  float w[block_inputs];
  int8_t quant[block_inputs];
  load_block(record, dtype, group * group_outputs + row, block * block_inputs, w);
  if (record->function == DTYPE_Q8) {
    struct q8_pair* pair = (struct q8_pair*)(uintptr_t)record->address[1] + at;
    pair->scale[b][row] = quantize_q8(w, quant);
    for (uint32_t i = 0; i < block_inputs; i += 4) __builtin_memcpy(pair->quant[b][i / 4][row], quant + i, 4);
  } else {
    struct q4_pair* pair = (struct q4_pair*)(uintptr_t)record->address[1] + at;
    pair->scale[b][row] = quantize_q4(w, quant);
    uint8_t bytes[block_inputs / 2];
    for (uint32_t i = 0; i < block_inputs / 2; i++) bytes[i] = (uint8_t)((quant[i] + 8) | (quant[i + 16] + 8) << 4);
    for (uint32_t i = 0; i < block_inputs / 2; i += 4) __builtin_memcpy(pair->quant[b][i / 4][row], bytes + i, 4);
  }
}

// out = the matrix in blocks, of the type `function`
//   address: matrix [width, inputs] of dtype, out [groups]; threads share the groups
static void quantize_weights(const struct pass* pass, const struct record* record, uint32_t thread) {
  uint32_t groups = (record->width + group_outputs - 1) / group_outputs;
  struct range range = share_of(groups, 1, thread, pass->thread_count);
  for (uint32_t g = range.begin; g < range.end; g++) {
    for (uint32_t row = 0; row < group_outputs; row++) {
      for (uint32_t block = 0; block < 2 * pairs_of(record->inputs); block++) {
        if (record->dtype == DTYPE_F32) quantize_block_of_weights(record, DTYPE_F32, g, row, block);
        else if (record->dtype == DTYPE_BF16) quantize_block_of_weights(record, DTYPE_BF16, g, row, block);
        else quantize_block_of_weights(record, DTYPE_F16, g, row, block);
      }
    }
  }
}
