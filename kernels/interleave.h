// Bytes of several rows of weights, side by side, as products of bytes (dot.h) take them.
#pragma once

#include "simd.h"

typedef uint8_t bytes16 __attribute__((vector_size(16)));
typedef uint16_t pairs8 __attribute__((vector_size(16)));

// Elements of two vectors in turn, from element `k` on.
#if defined(__clang__)
#define SHUFFLE_BYTES(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define SHUFFLE_PAIRS(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE_BYTES(a, b, ...) __builtin_shuffle(a, b, (bytes16){__VA_ARGS__})
#define SHUFFLE_PAIRS(a, b, ...) __builtin_shuffle(a, b, (pairs8){__VA_ARGS__})
#endif
#define INTERLEAVE_BYTES(a, b, k)                                                                                      \
  SHUFFLE_BYTES(a, b, k, k + 16, k + 1, k + 17, k + 2, k + 18, k + 3, k + 19, k + 4, k + 20, k + 5, k + 21, k + 6, k + 22, \
                k + 7, k + 23)
#define INTERLEAVE_PAIRS(a, b, k) \
  SHUFFLE_PAIRS((pairs8)a, (pairs8)b, k, k + 8, k + 1, k + 9, k + 2, k + 10, k + 3, k + 11)

// Bytes of four rows of weights, of every 16 outputs: those of outputs 0 to 3 side by side in the first vector, of 4 to 7 in the
// second, and so on.
static inline __attribute__((always_inline)) void interleave_four(const vint row[4], vint out[4]) {
#if LANES == 16 && defined(__AVX512BW__)
  __m512i a = _mm512_unpacklo_epi8((__m512i)row[0], (__m512i)row[1]), b = _mm512_unpacklo_epi8((__m512i)row[2], (__m512i)row[3]);
  __m512i c = _mm512_unpackhi_epi8((__m512i)row[0], (__m512i)row[1]), d = _mm512_unpackhi_epi8((__m512i)row[2], (__m512i)row[3]);
  out[0] = (vint)_mm512_unpacklo_epi16(a, b);
  out[1] = (vint)_mm512_unpackhi_epi16(a, b);
  out[2] = (vint)_mm512_unpacklo_epi16(c, d);
  out[3] = (vint)_mm512_unpackhi_epi16(c, d);
#elif LANES == 8 && defined(__AVX2__)
  __m256i a = _mm256_unpacklo_epi8((__m256i)row[0], (__m256i)row[1]), b = _mm256_unpacklo_epi8((__m256i)row[2], (__m256i)row[3]);
  __m256i c = _mm256_unpackhi_epi8((__m256i)row[0], (__m256i)row[1]), d = _mm256_unpackhi_epi8((__m256i)row[2], (__m256i)row[3]);
  out[0] = (vint)_mm256_unpacklo_epi16(a, b);
  out[1] = (vint)_mm256_unpackhi_epi16(a, b);
  out[2] = (vint)_mm256_unpacklo_epi16(c, d);
  out[3] = (vint)_mm256_unpackhi_epi16(c, d);
#else
  for (uint32_t part = 0; part < lanes / 4; part++) {
    bytes16 from[4];
    for (uint32_t r = 0; r < 4; r++) __builtin_memcpy(&from[r], (const char*)&row[r] + 16 * part, 16);
    bytes16 pairs[4];
    for (uint32_t k = 0; k < 2; k++) {
      pairs[2 * k] = k == 0 ? INTERLEAVE_BYTES(from[0], from[1], 0) : INTERLEAVE_BYTES(from[0], from[1], 8);
      pairs[2 * k + 1] = k == 0 ? INTERLEAVE_BYTES(from[2], from[3], 0) : INTERLEAVE_BYTES(from[2], from[3], 8);
    }
    for (uint32_t k = 0; k < 4; k++) {
      bytes16 a = pairs[k / 2 * 2], b = pairs[k / 2 * 2 + 1];
      pairs8 four = k % 2 == 0 ? INTERLEAVE_PAIRS(a, b, 0) : INTERLEAVE_PAIRS(a, b, 4);
      __builtin_memcpy((char*)&out[k] + 16 * part, &four, 16);
    }
  }
#endif
}

// The totals of the vectors of interleave_four, in the order of outputs: those of 16 outputs after those of the 16 before.
static inline __attribute__((always_inline)) void in_order(vint totals[4]) {
#if LANES == 16
  vint a = SHUFFLE(totals[0], totals[1], 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  vint b = SHUFFLE(totals[2], totals[3], 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  vint c = SHUFFLE(totals[0], totals[1], 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  vint d = SHUFFLE(totals[2], totals[3], 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  totals[0] = SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
  totals[1] = SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  totals[2] = SHUFFLE(c, d, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
  totals[3] = SHUFFLE(c, d, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
#elif LANES == 8
  vint t[4] = {totals[0], totals[1], totals[2], totals[3]};
  for (uint32_t k = 0; k < 2; k++) totals[k] = SHUFFLE(t[2 * k], t[2 * k + 1], 0, 1, 2, 3, 8, 9, 10, 11);
  for (uint32_t k = 0; k < 2; k++) totals[2 + k] = SHUFFLE(t[2 * k], t[2 * k + 1], 4, 5, 6, 7, 12, 13, 14, 15);
#else
  (void)totals;
#endif
}
