// Products of bytes, four to a lane, summed in 32 bits: what integer instructions do best. Each instruction set has its
// own way.
//
//   dot_signed(sum, w, x)     sum + w · x in every lane, w and x from -127 to 127 (where signed_bias is not
//                             0, plus that times the sum of x, which the caller takes off)
//   dot_nibbles(sum, w, x)    the same for w from 0 to 15; at most 8 in a row into one sum, which nibble_total widens
#pragma once

#include "simd.h"

static inline vint splat_int(int32_t x) { return x - (vint){0}; }

static inline vint load_int(const void* p) {
  vint v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

// The same four bytes in every lane.
static inline vint splat_bytes(const int8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, 4);
  return splat_int(four);
}

#if LANES == 16 && defined(__AVX512VNNI__)

// The instruction takes w without sign: 128 is added to each, which makes w · x larger by 128 times the sum of x.
enum { signed_bias = 128 };
typedef vint vnibbles;
static inline vint dot_signed(vint sum, vint w, vint x) {
  return (vint)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)(w ^ (int32_t)0x80808080), (__m512i)x);
}
static inline vnibbles dot_nibbles(vnibbles sum, vint w, vint x) {
  return (vint)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x);
}
static inline vint nibble_total(vnibbles sum) { return sum; }

#elif LANES == 16 && defined(__AVX512BW__)

// There is no instruction that moves signs between vectors of this width, so bytes are widened to 16 bits, even and odd
// ones.
enum { signed_bias = 0 };
typedef __m512i vnibbles;
static inline vint dot_signed(vint sum, vint w, vint x) {
  __m512i even = _mm512_madd_epi16(_mm512_srai_epi16(_mm512_slli_epi16((__m512i)w, 8), 8),
                                   _mm512_srai_epi16(_mm512_slli_epi16((__m512i)x, 8), 8));
  __m512i odd = _mm512_madd_epi16(_mm512_srai_epi16((__m512i)w, 8), _mm512_srai_epi16((__m512i)x, 8));
  return sum + (vint)even + (vint)odd;
}
// Pairs of products stay under 2 * 15 * 127, so that eight of them fit into 16 bits.
static inline vnibbles dot_nibbles(vnibbles sum, vint w, vint x) {
  return _mm512_add_epi16(sum, _mm512_maddubs_epi16((__m512i)w, (__m512i)x));
}
static inline vint nibble_total(vnibbles sum) { return (vint)_mm512_madd_epi16(sum, _mm512_set1_epi16(1)); }

#elif LANES == 8 && defined(__AVX2__)

// The instruction takes one side without sign: w's goes over to x. Pairs stay under 2 * 127 * 127 and fit into 16 bits.
enum { signed_bias = 0 };
typedef __m256i vnibbles;
static inline vint dot_signed(vint sum, vint w, vint x) {
  __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)w), _mm256_sign_epi8((__m256i)x, (__m256i)w));
  return sum + (vint)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
static inline vnibbles dot_nibbles(vnibbles sum, vint w, vint x) {
  return _mm256_add_epi16(sum, _mm256_maddubs_epi16((__m256i)w, (__m256i)x));
}
static inline vint nibble_total(vnibbles sum) { return (vint)_mm256_madd_epi16(sum, _mm256_set1_epi16(1)); }

#elif LANES == 4 && defined(__SSSE3__)

enum { signed_bias = 0 };
typedef __m128i vnibbles;
static inline vint dot_signed(vint sum, vint w, vint x) {
  __m128i pairs = _mm_maddubs_epi16(_mm_abs_epi8((__m128i)w), _mm_sign_epi8((__m128i)x, (__m128i)w));
  return sum + (vint)_mm_madd_epi16(pairs, _mm_set1_epi16(1));
}
static inline vnibbles dot_nibbles(vnibbles sum, vint w, vint x) {
  return _mm_add_epi16(sum, _mm_maddubs_epi16((__m128i)w, (__m128i)x));
}
static inline vint nibble_total(vnibbles sum) { return (vint)_mm_madd_epi16(sum, _mm_set1_epi16(1)); }

#elif LANES == 4 && defined(__ARM_FEATURE_DOTPROD)

enum { signed_bias = 0 };
typedef vint vnibbles;
static inline vint dot_signed(vint sum, vint w, vint x) {
  return (vint)vdotq_s32((int32x4_t)sum, (int8x16_t)w, (int8x16_t)x);
}
static inline vnibbles dot_nibbles(vnibbles sum, vint w, vint x) { return dot_signed(sum, w, x); }
static inline vint nibble_total(vnibbles sum) { return sum; }

#elif defined(__wasm__)

enum { signed_bias = 0 };
typedef vint vnibbles;
#if defined(__wasm_relaxed_simd__)
// The second operand has seven bits without sign: w's sign goes over to x.
static inline vint dot_signed(vint sum, vint w, vint x) {
  v128_t negative = wasm_i8x16_lt((v128_t)w, wasm_i8x16_const_splat(0));
  v128_t signed_x = wasm_i8x16_sub(wasm_v128_xor((v128_t)x, negative), negative);
  return (vint)wasm_i32x4_relaxed_dot_i8x16_i7x16_add(signed_x, wasm_i8x16_abs((v128_t)w), (v128_t)sum);
}
#else
// Bytes are widened to 16 bits, even and odd ones.
static inline vint dot_signed(vint sum, vint w, vint x) {
  v128_t even = wasm_i32x4_dot_i16x8(wasm_i16x8_shr(wasm_i16x8_shl((v128_t)w, 8), 8),
                                     wasm_i16x8_shr(wasm_i16x8_shl((v128_t)x, 8), 8));
  v128_t odd = wasm_i32x4_dot_i16x8(wasm_i16x8_shr((v128_t)w, 8), wasm_i16x8_shr((v128_t)x, 8));
  return sum + (vint)even + (vint)odd;
}
#endif
// Nibbles have no sign to extend, and their odd bytes need no mask below: a shift brings them down.
// (The relaxed instruction took a quarter longer here, in Chromium on x86.)
static inline vnibbles dot_nibbles(vnibbles sum, vint w, vint x) {
  v128_t even = wasm_i32x4_dot_i16x8(wasm_v128_and((v128_t)w, wasm_i16x8_const_splat(0xff)),
                                     wasm_i16x8_shr(wasm_i16x8_shl((v128_t)x, 8), 8));
  v128_t odd = wasm_i32x4_dot_i16x8(wasm_u16x8_shr((v128_t)w, 8), wasm_i16x8_shr((v128_t)x, 8));
  return sum + (vint)even + (vint)odd;
}
static inline vint nibble_total(vnibbles sum) { return sum; }

#else

// Plain arithmetic on vectors. Two products of bytes fit into 16 bits, four are summed in 32.
enum { signed_bias = 0 };
typedef vint vnibbles;
typedef int16_t vshort __attribute__((vector_size(4 * LANES)));
static inline vint dot_signed(vint sum, vint w, vint x) {
  vshort even = (((vshort)w << 8) >> 8) * (((vshort)x << 8) >> 8);
  vint pairs = (vint)(even + ((vshort)w >> 8) * ((vshort)x >> 8));
  return sum + ((pairs << 16) >> 16) + (pairs >> 16);
}
static inline vnibbles dot_nibbles(vnibbles sum, vint w, vint x) { return dot_signed(sum, w, x); }
static inline vint nibble_total(vnibbles sum) { return sum; }

#endif
