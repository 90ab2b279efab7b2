// Square blocks of vectors, turned so that rows become columns.
#pragma once

#include "simd.h"

// a0 b0 a1 b1 ... of the first half of the lanes, and of the second.
#if LANES == 16
static inline vfloat interleave_first(vfloat a, vfloat b) {
  return SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
static inline vfloat interleave_second(vfloat a, vfloat b) {
  return SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#elif LANES == 8
static inline vfloat interleave_first(vfloat a, vfloat b) { return SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
static inline vfloat interleave_second(vfloat a, vfloat b) { return SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
#else
static inline vfloat interleave_first(vfloat a, vfloat b) { return SHUFFLE(a, b, 0, 4, 1, 5); }
static inline vfloat interleave_second(vfloat a, vfloat b) { return SHUFFLE(a, b, 2, 6, 3, 7); }
#endif

// Vector i, lane j becomes vector j, lane i. Each round of interleaving the first half of the vectors with the second moves
// one bit of the vector's number into the lane's.
static inline __attribute__((always_inline)) void transpose(vfloat block[lanes]) {
  for (int round = lanes; round > 1; round /= 2) {
    vfloat next[lanes];
    for (int i = 0; i < lanes / 2; i++) {
      next[2 * i] = interleave_first(block[i], block[i + lanes / 2]);
      next[2 * i + 1] = interleave_second(block[i], block[i + lanes / 2]);
    }
    for (int i = 0; i < lanes; i++) block[i] = next[i];
  }
}
