// The instructions of AVX-512 that the kernels use, in C, for processors without them: included before the kernels by cc.mjs, so
// that the code for sixteen lanes is tested on any x86. Slow; meant for tests only.
#pragma once

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define __AVX512F__ 1
#define __AVX512BW__ 1
#define __AVX512VL__ 1
#define __AVX512DQ__ 1
#if EMULATE_VNNI
#define __AVX512VNNI__ 1
#endif

typedef float emulated_floats __attribute__((vector_size(64)));
typedef int32_t emulated_ints __attribute__((vector_size(64)));
typedef int16_t emulated_shorts __attribute__((vector_size(64)));
typedef int8_t emulated_bytes __attribute__((vector_size(64)));
typedef uint8_t emulated_unsigned_bytes __attribute__((vector_size(64)));

static inline __m512i emulated_cvtps_epi32(__m512 x) {
  emulated_ints result;
  for (int i = 0; i < 16; i++) result[i] = (int32_t)rintf(((emulated_floats)x)[i]);
  return (__m512i)result;
}

static inline __m512 emulated_cvtph_ps(__m256i x) {
  uint16_t half[16];
  memcpy(half, &x, sizeof half);
  emulated_floats result;
  for (int i = 0; i < 16; i++) result[i] = _cvtsh_ss(half[i]);
  return (__m512)result;
}

static inline __m512 emulated_sqrt_ps(__m512 x) {
  emulated_floats result;
  for (int i = 0; i < 16; i++) result[i] = sqrtf(((emulated_floats)x)[i]);
  return (__m512)result;
}

// Where one is NaN, b, as the instructions have it.
static inline __m512 emulated_max_ps(__m512 a, __m512 b) {
  emulated_ints larger = (emulated_floats)a > (emulated_floats)b;
  return (__m512)((larger & (emulated_ints)a) | (~larger & (emulated_ints)b));
}

static inline __m512 emulated_min_ps(__m512 a, __m512 b) {
  emulated_ints smaller = (emulated_floats)a < (emulated_floats)b;
  return (__m512)((smaller & (emulated_ints)a) | (~smaller & (emulated_ints)b));
}

static inline float emulated_reduce_add_ps(__m512 x) {
  float part[16];
  memcpy(part, &x, sizeof part);
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; i++) part[i] += part[i + half];
  }
  return part[0];
}

static inline __m512i emulated_dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {
  emulated_ints result = (emulated_ints)sum;
  for (int i = 0; i < 64; i++) result[i / 4] += (int)((emulated_unsigned_bytes)a)[i] * ((emulated_bytes)b)[i];
  return (__m512i)result;
}

static inline __m512i emulated_madd_epi16(__m512i a, __m512i b) {
  emulated_ints result = {0};
  for (int i = 0; i < 32; i++) result[i / 2] += (int)((emulated_shorts)a)[i] * ((emulated_shorts)b)[i];
  return (__m512i)result;
}

static inline __m512i emulated_maddubs_epi16(__m512i a, __m512i b) {
  emulated_shorts result;
  for (int i = 0; i < 32; i++) {
    int sum = 0;
    for (int k = 2 * i; k < 2 * i + 2; k++) sum += (int)((emulated_unsigned_bytes)a)[k] * ((emulated_bytes)b)[k];
    result[i] = (int16_t)(sum > 32767 ? 32767 : sum < -32768 ? -32768 : sum);
  }
  return (__m512i)result;
}

static inline __m512i emulated_srai_epi16(__m512i a, int count) { return (__m512i)((emulated_shorts)a >> (int16_t)count); }
static inline __m512i emulated_slli_epi16(__m512i a, int count) { return (__m512i)((emulated_shorts)a << (int16_t)count); }
static inline __m512i emulated_add_epi16(__m512i a, __m512i b) { return (__m512i)((emulated_shorts)a + (emulated_shorts)b); }
static inline __m512i emulated_set1_epi16(int16_t value) { return (__m512i)((emulated_shorts){0} + value); }

static inline uint16_t emulated_test_epi32_mask(__m512i a, __m512i b) {
  uint16_t mask = 0;
  for (int i = 0; i < 16; i++) mask |= (uint16_t)((((emulated_ints)a)[i] & ((emulated_ints)b)[i]) != 0) << i;
  return mask;
}

// Elements of `size` bytes of a and b in turn, of the lower or the upper half of every 16 bytes.
static inline __m512i emulated_unpack(__m512i a, __m512i b, int size, int upper) {
  uint8_t from[2][64], result[64];
  memcpy(from[0], &a, 64);
  memcpy(from[1], &b, 64);
  for (int i = 0; i < 64; i++) {
    const int element = i % 16 / size;
    result[i] = from[element % 2][i / 16 * 16 + 8 * upper + element / 2 * size + i % size];
  }
  memcpy(&a, result, 64);
  return a;
}

#define _mm512_unpacklo_epi8(a, b) emulated_unpack(a, b, 1, 0)
#define _mm512_unpackhi_epi8(a, b) emulated_unpack(a, b, 1, 1)
#define _mm512_unpacklo_epi16(a, b) emulated_unpack(a, b, 2, 0)
#define _mm512_unpackhi_epi16(a, b) emulated_unpack(a, b, 2, 1)
#define _mm512_cvtps_epi32 emulated_cvtps_epi32
#define _mm512_cvtph_ps emulated_cvtph_ps
#define _mm512_sqrt_ps emulated_sqrt_ps
#define _mm512_max_ps emulated_max_ps
#define _mm512_min_ps emulated_min_ps
#define _mm512_reduce_add_ps emulated_reduce_add_ps
#define _mm512_dpbusd_epi32 emulated_dpbusd_epi32
#define _mm512_madd_epi16 emulated_madd_epi16
#define _mm512_maddubs_epi16 emulated_maddubs_epi16
#define _mm512_srai_epi16 emulated_srai_epi16
#define _mm512_slli_epi16 emulated_slli_epi16
#define _mm512_add_epi16 emulated_add_epi16
#define _mm512_set1_epi16 emulated_set1_epi16
#define _mm512_test_epi32_mask emulated_test_epi32_mask
