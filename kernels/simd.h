// Vectors of floats as wide as the machine has them, through the vector extensions of GCC and Clang: AVX-512, AVX2, NEON
// and WebAssembly come from one text. `lanes` floats go in a vector; the last, partial vector of a row is loaded and stored
// with a length, so that every element goes through the same arithmetic.
#pragma once

#include <stdint.h>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__wasm__)
#include <wasm_simd128.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

// Vectors wider than the machine's are taken apart by the compiler, so a width can be forced for tests.
#if !defined(LANES)
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif
#endif

enum { lanes = LANES };

typedef float vfloat __attribute__((vector_size(4 * LANES)));
typedef int32_t vint __attribute__((vector_size(4 * LANES)));
typedef uint32_t vuint __attribute__((vector_size(4 * LANES)));
typedef uint16_t vhalf __attribute__((vector_size(2 * LANES)));
typedef int16_t vint16 __attribute__((vector_size(2 * LANES)));

// Lanes of two vectors by their numbers.
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vint){__VA_ARGS__})
#endif

static inline vfloat splat(float x) { return x - (vfloat){0}; }

// a * b + c, in one rounding where the machine has an instruction for it.
static inline vfloat multiply_add(vfloat a, vfloat b, vfloat c) {
#if defined(__wasm_relaxed_simd__)
  return (vfloat)wasm_f32x4_relaxed_madd((v128_t)a, (v128_t)b, (v128_t)c);
#else
  return a * b + c;
#endif
}

static inline vfloat load(const float* p) {
  vfloat v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

static inline void store(float* p, vfloat v) { __builtin_memcpy(p, &v, sizeof v); }

// The first `count` lanes, the others 0.
static inline vfloat load_part(const float* p, uint32_t count) {
  float part[lanes] = {0};
  for (uint32_t i = 0; i < count; i++) part[i] = p[i];
  return load(part);
}

static inline void store_part(float* p, vfloat v, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) p[i] = v[i];
}

static inline vfloat load_up_to(const float* p, uint32_t count) {
  return count >= lanes ? load(p) : load_part(p, count);
}

static inline void store_up_to(float* p, vfloat v, uint32_t count) {
  if (count >= lanes) store(p, v);
  else store_part(p, v, count);
}

static inline vfloat choose(vint mask, vfloat yes, vfloat no) {
  return (vfloat)((mask & (vint)yes) | (~mask & (vint)no));
}

static inline int any_true(vint mask) {
#if LANES == 16 && defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif LANES == 8 && defined(__AVX2__)
  return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#elif LANES == 4 && defined(__SSE2__)
  return _mm_movemask_ps((__m128)mask) != 0;
#elif LANES == 4 && defined(__wasm__)
  return wasm_v128_any_true((v128_t)mask);
#else
  int32_t any = 0;
  for (int i = 0; i < lanes; i++) any |= mask[i];
  return any != 0;
#endif
}

static inline vfloat magnitude_of(vfloat x) { return (vfloat)((vint)x & 0x7fffffff); }

static inline vfloat square_root(vfloat x) {
#if LANES == 16 && defined(__AVX512F__)
  return (vfloat)_mm512_sqrt_ps((__m512)x);
#elif LANES == 8 && defined(__AVX2__)
  return (vfloat)_mm256_sqrt_ps((__m256)x);
#elif LANES == 4 && defined(__SSE2__)
  return (vfloat)_mm_sqrt_ps((__m128)x);
#elif LANES == 4 && defined(__wasm__)
  return (vfloat)wasm_f32x4_sqrt((v128_t)x);
#else
  vfloat result;
  for (int i = 0; i < lanes; i++) result[i] = __builtin_sqrtf(x[i]);
  return result;
#endif
}

// Where one is NaN, b.
static inline vfloat maximum(vfloat a, vfloat b) {
#if LANES == 16 && defined(__AVX512F__)
  return (vfloat)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8 && defined(__AVX2__)
  return (vfloat)_mm256_max_ps((__m256)a, (__m256)b);
#elif LANES == 4 && defined(__SSE2__)
  return (vfloat)_mm_max_ps((__m128)a, (__m128)b);
#elif LANES == 4 && defined(__wasm__)
  return (vfloat)wasm_f32x4_pmax((v128_t)b, (v128_t)a);
#else
  return choose(a > b, a, b);
#endif
}

static inline vfloat minimum(vfloat a, vfloat b) {
#if LANES == 16 && defined(__AVX512F__)
  return (vfloat)_mm512_min_ps((__m512)a, (__m512)b);
#elif LANES == 8 && defined(__AVX2__)
  return (vfloat)_mm256_min_ps((__m256)a, (__m256)b);
#elif LANES == 4 && defined(__SSE2__)
  return (vfloat)_mm_min_ps((__m128)a, (__m128)b);
#elif LANES == 4 && defined(__wasm__)
  return (vfloat)wasm_f32x4_pmin((v128_t)b, (v128_t)a);
#else
  return choose(a < b, a, b);
#endif
}

// To the nearest integer, ties to even.
static inline vint round_to_int(vfloat x) {
#if LANES == 16 && defined(__AVX512F__)
  return (vint)_mm512_cvtps_epi32((__m512)x);
#elif LANES == 8 && defined(__AVX2__)
  return (vint)_mm256_cvtps_epi32((__m256)x);
#elif LANES == 4 && defined(__SSE2__)
  return (vint)_mm_cvtps_epi32((__m128)x);
#elif LANES == 4 && defined(__wasm__)
  return (vint)wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest((v128_t)x));
#elif LANES == 4 && defined(__ARM_NEON)
  return (vint)vcvtnq_s32_f32((float32x4_t)x);
#else
  vint result;
  for (int i = 0; i < lanes; i++) result[i] = (int32_t)__builtin_rintf(x[i]);
  return result;
#endif
}

#if defined(__SSE2__)
static inline float sum_of_four(__m128 v) {
  v = _mm_add_ps(v, _mm_movehl_ps(v, v));
  return _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps(v, v, 1)));
}
#endif

// Halves are added until one lane is left.
static inline float sum(vfloat v) {
#if LANES == 16 && defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#elif LANES == 8 && defined(__AVX2__)
  return sum_of_four(_mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1)));
#elif LANES == 4 && defined(__SSE2__)
  return sum_of_four((__m128)v);
#else
  float part[lanes];
  store(part, v);
  for (int half = lanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; i++) part[i] += part[i + half];
  }
  return part[0];
#endif
}

#if LANES >= 8 && defined(__AVX2__)
// Its eight lanes, or its halves.
struct eights {
  __m256i part[LANES / 8];
};
static inline struct eights eights_of(vint v) {
  struct eights eights;
  __builtin_memcpy(&eights, &v, sizeof v);
  return eights;
}
#endif

// The largest lane, none of which is negative: as integers, such floats have the same order. Any of them where one is NaN.
static inline float largest_lane(vfloat v) {
#if LANES >= 8 && defined(__AVX2__)
  struct eights x = eights_of((vint)v);
  __m256i eight = _mm256_max_epi32(x.part[0], x.part[LANES / 8 - 1]);
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  return _mm_cvtss_f32(_mm_castsi128_ps(four));
#else
  float largest = v[0];
  for (int i = 1; i < lanes; i++) largest = v[i] > largest ? v[i] : largest;
  return largest;
#endif
}

// Wraps around where it does not fit.
static inline int32_t sum_of_ints(vint v) {
#if LANES >= 8 && defined(__AVX2__)
  struct eights x = eights_of(v);
  __m256i eight = LANES == 8 ? x.part[0] : _mm256_add_epi32(x.part[0], x.part[LANES / 8 - 1]);
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
#else
  uint32_t total = 0;
  for (int i = 0; i < lanes; i++) total += (uint32_t)v[i];
  return (int32_t)total;
#endif
}

// The sums of four vectors; their order of additions is the same for each, and not that of sum.
static inline void sums_of_four(const vfloat v[4], float result[4]) {
#if LANES == 16 && defined(__AVX512F__)
  __m256 halves[4];
  for (int i = 0; i < 4; i++) {
    __m256 parts[2];
    __builtin_memcpy(parts, &v[i], sizeof parts);
    halves[i] = _mm256_add_ps(parts[0], parts[1]);
  }
  __m256 all = _mm256_hadd_ps(_mm256_hadd_ps(halves[0], halves[1]), _mm256_hadd_ps(halves[2], halves[3]));
  _mm_storeu_ps(result, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
#elif LANES == 8 && defined(__AVX2__)
  __m256 all = _mm256_hadd_ps(_mm256_hadd_ps((__m256)v[0], (__m256)v[1]), _mm256_hadd_ps((__m256)v[2], (__m256)v[3]));
  _mm_storeu_ps(result, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
#elif LANES == 4
  // Turned, each vector's lanes lie in four vectors.
  vfloat low = SHUFFLE(v[0], v[1], 0, 4, 1, 5) + SHUFFLE(v[0], v[1], 2, 6, 3, 7);
  vfloat high = SHUFFLE(v[2], v[3], 0, 4, 1, 5) + SHUFFLE(v[2], v[3], 2, 6, 3, 7);
  store(result, SHUFFLE(low, high, 0, 1, 4, 5) + SHUFFLE(low, high, 2, 3, 6, 7));
#else
  for (int i = 0; i < 4; i++) result[i] = sum(v[i]);
#endif
}

// bfloat16 is the upper half of float32.
static inline vfloat load_bf16(const uint16_t* p) {
  vhalf half;
  __builtin_memcpy(&half, p, sizeof half);
  return (vfloat)(__builtin_convertvector(half, vuint) << 16);
}

// IEEE 754 binary16. Without an instruction for it: moving exponent and mantissa into place and multiplying by 2^112 gives
// normal and subnormal values; infinities and NaN get their exponent back.
static inline vfloat load_f16(const uint16_t* p) {
#if LANES == 16 && defined(__AVX512F__)
  return (vfloat)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__F16C__) && LANES == 8
  return (vfloat)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
#else
  vhalf half;
  __builtin_memcpy(&half, p, sizeof half);
  vuint bits = __builtin_convertvector(half, vuint);
  vuint sign = (bits & 0x8000) << 16;
  vuint magnitude = (bits & 0x7fff) << 13;
  vfloat value = (vfloat)magnitude * 0x1p112f;
  vuint infinite = (vuint)((vint)magnitude >= (31 << 23)) & 0x7f800000;
  return (vfloat)((vuint)value | infinite | sign);
#endif
}

// The same of finite values, in four steps: what is loaded with its sign has that at its place and, once that is taken out,
// in the upper bits of the exponent.
static inline vfloat load_finite_f16(const uint16_t* p) {
  vint16 half;
  __builtin_memcpy(&half, p, sizeof half);
  vuint bits = (vuint)__builtin_convertvector(half, vint) << 13;
  return (vfloat)(bits & 0x8fffffff) * 0x1p112f;
}

static inline float bf16_to_float(uint16_t half) {
  uint32_t bits = (uint32_t)half << 16;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

static inline float f16_to_float(uint16_t half) {
  uint16_t part[lanes] = {half};
  return load_f16(part)[0];
}

// e^r for |r| <= ln 2 / 2, by a polynomial (Cephes, expf), taken together in pairs: half as many steps wait for each other.
static inline vfloat exp_polynomial(vfloat r) {
  vfloat r2 = r * r;
  vfloat poly = 1.9875691500e-4f * r + 1.3981999507e-3f;
  poly = poly * r2 + (8.3334519073e-3f * r + 4.1665795894e-2f);
  poly = poly * r2 + (1.6666665459e-1f * r + 5.0000001201e-1f);
  return poly * r2 + r + 1;
}

// e^x with a relative error under 2e-7; 0 below -87.3, saturating at the largest float above 88.7; NaN stays NaN.
// x = n ln 2 + r with |r| <= ln 2 / 2; e^r times 2^n through the exponent bits.
static inline vfloat exp_v(vfloat x) {
  vint tiny = x < -87.3f;
  x = minimum(splat(88.7f), x);
  x = maximum(splat(-87.3f), x);
  const float magic = 0x1.8p23f;  // adding it rounds to an integer in the low bits
  vfloat shifted = x * 1.44269504088896341f + magic;
  vfloat n = shifted - magic;
  vfloat result = exp_polynomial(x - n * 0.693359375f + n * 2.12194440e-4f);
  // 2^n in two factors, so that n = 128 does not overflow the exponent field.
  vint whole = (vint)shifted - (vint)splat(magic);
  vint half = whole >> 1;
  result = result * (vfloat)((half + 127) << 23) * (vfloat)((whole - half + 127) << 23);
  return choose(tiny, splat(0), result);
}

// The same for numbers that are at most 0, in fewer steps: 2^n is one factor, its exponent what the low bits are rounded to.
// What comes out below -87.3 is not looked at.
static inline vfloat exp_of_at_most_zero(vfloat x) {
  vint tiny = x < -87.3f;
  const float magic = 0x1.8p23f + 127;
  vfloat shifted = x * 1.44269504088896341f + magic;
  vfloat n = shifted - magic;
  vfloat result = exp_polynomial(x - n * 0.693359375f + n * 2.12194440e-4f);
  return (vfloat)(~tiny & (vint)(result * (vfloat)((vint)shifted << 23)));
}

static inline vfloat sigmoid_v(vfloat x) { return 1 / (1 + exp_v(-x)); }

static inline vfloat relu_squared(vfloat x) { return choose(x < 0, splat(0), x * x); }

// tanh with a relative error under 3e-7: near 0 by a polynomial (Cephes, tanhf), else by the exponential, which is computed of
// the magnitude alone so that it saturates where tanh does.
static inline vfloat tanh_v(vfloat x) {
  vfloat magnitude = magnitude_of(x), square = x * x;
  vfloat poly = -5.70498872745e-3f * square + 2.06390887954e-2f;
  poly = poly * square - 5.37397155531e-2f;
  poly = poly * square + 1.33314422036e-1f;
  poly = poly * square - 3.33332819422e-1f;
  vfloat far = 1 - 2 / (exp_v(2 * magnitude) + 1);
  vint sign = (vint)x & (vint)splat(-0.0f);
  return choose(magnitude < 0.625f, x + x * square * poly, (vfloat)((vint)far | sign));
}
