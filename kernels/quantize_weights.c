// Weights to blocks of integers with a scale, when a model is loaded: quantized.h has the layout. The lanes of a vector are
// neighbouring outputs, as they are in a group, so nothing is summed across lanes. src/quantization/blocks.ts is the plain form;
// both choose the same integers and scales, to the bit.

#include "kernels.h"
#include "load_weights.h"
#include "quantized.h"
#include "simd.h"
#include "transpose.h"

// A block of all outputs of a group, turned: an input's weights lie together.
typedef float block_of_group[block_inputs][group_outputs];

static inline __attribute__((always_inline)) void load_block_of_group(const struct record* record, uint32_t dtype,
                                                                      uint32_t output, uint32_t input, block_of_group w) {
  const void* weights = (const void*)(uintptr_t)record->address[0];
  if (output + group_outputs > record->width || input + block_inputs > record->inputs) {
    for (uint32_t i = 0; i < block_inputs * group_outputs; i++) {
      uint32_t o = output + i % group_outputs, k = input + i / group_outputs;
      int inside = o < record->width && k < record->inputs;
      w[i / group_outputs][i % group_outputs] = inside ? load_weight(weights, dtype, (uint64_t)o * record->inputs + k) : 0;
    }
    return;
  }
  for (uint32_t o = 0; o < group_outputs; o += lanes) {
    for (uint32_t k = 0; k < block_inputs; k += lanes) {
      vfloat square[lanes];
      for (uint32_t i = 0; i < lanes; i++) {
        square[i] = load_weights(weights, dtype, (uint64_t)(output + o + i) * record->inputs + input + k);
      }
      transpose(square);
      for (uint32_t i = 0; i < lanes; i++) store(&w[k + i][o], square[i]);
    }
  }
}

// The value of largest magnitude, with its sign; of equals the first. NaN where one is not finite.
static vfloat extreme_of(const block_of_group w, uint32_t output) {
  vfloat extreme = {0}, poison = {0};
  for (uint32_t i = 0; i < block_inputs; i++) {
    vfloat value = load(&w[i][output]);
    extreme = choose(magnitude_of(value) > magnitude_of(extreme), value, extreme);
    poison += value - value;
  }
  return extreme + poison;
}

// The scale of a block with a value that is not finite, whose integers are 0: so it is not lost, and not taken for a number.
enum { f16_nan = 0x7e00 };

// float32 to binary16, to nearest, ties to even; scales past its range become its largest number.
static vint float_to_f16(vfloat value) {
  vint sign = (vint)value >> 16 & 0x8000, magnitude = (vint)value & 0x7fffffff;
  // Subnormal: adding 0.5 moves the mantissa to where float32 itself rounds it to the right bit.
  vint small = (vint)((vfloat)magnitude + 0.5f) - 0x3f000000;
  vint normal = (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
  vint is_small = magnitude < 0x38800000, is_large = magnitude >= 0x477ff000;
  vint result = (is_small & small) | (~is_small & normal);
  return sign | (is_large & 0x7bff) | (~is_large & result);
}

static void store_scales(uint16_t* scales, vint bits) {
  vhalf half = __builtin_convertvector((vuint)bits, vhalf);
  __builtin_memcpy(scales, &half, sizeof half);
}

static void store_words(void* bytes, vint words) { __builtin_memcpy(bytes, &words, sizeof words); }

// A scale from which on its inverse is a number.
static const float least_scale_of_q8 = 1e-37f;

// As ggml's quantize_row_q8_0: scale = largest magnitude / 127, integers to nearest.
static void quantize_q8(const block_of_group w, uint32_t output, uint16_t scales[group_outputs],
                        int8_t quant[8][group_outputs][4]) {
  vfloat scale = magnitude_of(extreme_of(w, output)) / 127;
  vint finite = scale == scale;
  vint some = scale >= least_scale_of_q8;
  vfloat inverse = 1 / scale;
  for (uint32_t i = 0; i < block_inputs; i += 4) {
    vint word = {0};
    for (uint32_t k = 0; k < 4; k++) word |= (round_to_int(load(&w[i + k][output]) * inverse) & 0xff) << (8 * k);
    store_words(quant[i / 4][output], word & some);
  }
  store_scales(scales + output, (finite & float_to_f16(scale)) | (~finite & f16_nan));
}

enum { q4_candidates = 8, fit_candidates = 16, largest_whole = 32767 };

// Below this a scale is 0 in binary16.
static const float least_extreme = 1e-20f;

// Weights that are few different numbers in each block, as those of other blocks are: of several scales from ggml's to twice that
// the one that leaves the least sum of squared errors, chosen as in q4 below.
static void fit_q8(const block_of_group w, uint32_t output, uint16_t scales[group_outputs], int8_t quant[8][group_outputs][4]) {
  vfloat extreme = magnitude_of(extreme_of(w, output));
  vint finite = extreme == extreme;
  vint some = extreme >= least_extreme;
  vint whole[block_inputs];
  // Where there is nothing to fit they are 0: what is not finite would become integers too large to multiply.
  for (uint32_t i = 0; i < block_inputs; i++) whole[i] = round_to_int(load(&w[i][output]) * (largest_whole / extreme)) & some;
  vfloat best_factor = {0}, best_product = {0}, best_squares = splat(1);
  for (uint32_t c = 0; c < fit_candidates; c++) {
    const float factor = (127 - 4 * (float)c) / largest_whole;
    vint product_sum = {0}, square_sum = {0};
    for (uint32_t i = 0; i < block_inputs; i++) {
      vint q = round_to_int(__builtin_convertvector(whole[i], vfloat) * factor);
      product_sum += q * whole[i];
      square_sum += q * q;
    }
    vfloat product = __builtin_convertvector(product_sum, vfloat), squares = __builtin_convertvector(square_sum, vfloat);
    vint better = product * product * best_squares > best_product * best_product * squares;
    best_factor = choose(better, splat(factor), best_factor);
    best_product = choose(better, product, best_product);
    best_squares = choose(better, squares, best_squares);
  }
  for (uint32_t i = 0; i < block_inputs; i += 4) {
    vint word = {0};
    for (uint32_t k = 0; k < 4; k++) {
      vint q = round_to_int(__builtin_convertvector(whole[i + k], vfloat) * best_factor);
      word |= (q & 0xff) << (8 * k);
    }
    store_words(quant[i / 4][output], word & some);
  }
  vfloat scale = best_product / best_squares * (extreme / largest_whole);
  store_scales(scales + output, (some & float_to_f16(scale)) | (~finite & f16_nan));
}

// The nearest of the integers from -8 to 7, ties to even.
static vfloat round_to_q4(vfloat scaled) {
  const float magic = 0x1.8p23f;  // adding it leaves no bits behind the point
  return minimum(maximum(scaled, splat(-8)), splat(7)) + magic - magic;
}

// ggml takes for Q4_0 the scale at which the largest magnitude becomes -8. A scale somewhat smaller or larger often fits the
// block better: of `q4_candidates` the one is taken that leaves the least sum of squared errors when the scale is then chosen
// by least squares, sum of w q / sum of q². The error is sum of w² - (sum of w q)² / sum of q², so the last term is compared.
// w stands here as integers of 16 bits, of which the largest magnitude is 32767: float32 holds their sums exactly.
static void quantize_q4(const block_of_group w, uint32_t output, uint16_t scales[group_outputs],
                        uint8_t quant[4][group_outputs][4]) {
  vfloat extreme = extreme_of(w, output);
  vint finite = extreme == extreme;
  vint some = magnitude_of(extreme) >= least_extreme;
  vfloat whole[block_inputs];
  for (uint32_t i = 0; i < block_inputs; i++) {
    vint rounded = round_to_int(load(&w[i][output]) * (largest_whole / extreme));
    whole[i] = __builtin_convertvector(rounded, vfloat);
  }
  vfloat best_factor = {0}, best_product = {0}, best_squares = splat(1);
  for (uint32_t c = 0; c < q4_candidates; c++) {
    const float factor = -(6.5f + 0.375f * (float)c) / largest_whole;
    vfloat product = {0}, squares = {0};
    for (uint32_t i = 0; i < block_inputs; i++) {
      vfloat q = round_to_q4(whole[i] * factor);
      product += q * whole[i];
      squares += q * q;
    }
    vint better = product * product * best_squares > best_product * best_product * squares;
    best_factor = choose(better, splat(factor), best_factor);
    best_product = choose(better, product, best_product);
    best_squares = choose(better, squares, best_squares);
  }
  for (uint32_t i = 0; i < block_inputs / 2; i += 4) {
    vint word = {0};
    for (uint32_t k = 0; k < 4; k++) {
      vint low = round_to_int(round_to_q4(whole[i + k] * best_factor)) + 8;
      vint high = round_to_int(round_to_q4(whole[i + k + block_inputs / 2] * best_factor)) + 8;
      word |= (low | high << 4) << (8 * k);
    }
    store_words(quant[i / 4][output], (some & word) | (~some & (int32_t)0x88888888));
  }
  vfloat scale = best_product / best_squares * (extreme / largest_whole);
  store_scales(scales + output, (some & float_to_f16(scale)) | (~finite & f16_nan));
}

static inline __attribute__((always_inline)) void quantize_group(const struct record* record, uint32_t dtype, uint32_t group) {
  for (uint32_t block = 0; block < 2 * pairs_of(record->inputs); block++) {
    uint64_t at = (uint64_t)group * pairs_of(record->inputs) + block / 2;
    uint32_t b = block % 2;
    block_of_group w;
    load_block_of_group(record, dtype, group * group_outputs, block * block_inputs, w);
    for (uint32_t output = 0; output < group_outputs; output += lanes) {
      if (record->attribute[0].count == DTYPE_Q8) {
        struct q8_pair* pair = (struct q8_pair*)(uintptr_t)record->address[1] + at;
        if (record->attribute[1].count) fit_q8(w, output, pair->scale[b], pair->quant[b]);
        else quantize_q8(w, output, pair->scale[b], pair->quant[b]);
      } else {
        struct q4_pair* pair = (struct q4_pair*)(uintptr_t)record->address[1] + at;
        quantize_q4(w, output, pair->scale[b], pair->quant[b]);
      }
    }
  }
}

// out = the matrix in blocks
//   attributes: the type of blocks, whether its weights come from blocks of another one
//   address: matrix [width, inputs] of dtype, out [groups]; threads share the groups
static void quantize_weights(const struct pass* pass, const struct record* record, uint32_t thread) {
  uint32_t groups = (record->width + group_outputs - 1) / group_outputs;
  struct range range = share_of(groups, 1, thread, pass->thread_count);
  for (uint32_t group = range.begin; group < range.end; group++) {
    if (record->dtype == DTYPE_F32) quantize_group(record, DTYPE_F32, group);
    else if (record->dtype == DTYPE_BF16) quantize_group(record, DTYPE_BF16, group);
    else quantize_group(record, DTYPE_F16, group);
  }
}
