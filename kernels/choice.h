// What a pass is told of each token that it is to choose. The same layout is written by
// src/backends/kernel/choice-records.ts; the two must change together.
#pragma once

#include <stdint.h>

// An amount added to one logit, and what that logit was.
struct adjustment {
  int32_t token;
  float amount;
  float saved;
};

// One row's choice; 64 bytes.
struct choice {
  uint32_t wanted;
  uint32_t top_k;
  double temperature;
  double top_p;
  double min_p;
  double uniform;  // the random number that it takes, from 0 up to 1
  uint64_t adjustments;
  uint32_t adjustment_count;
  int32_t token;  // the result; -1 where no logit is a number, or one is NaN or infinite
  uint64_t mask;  // a bit for each token: those that may be chosen; 0 where all may
};
