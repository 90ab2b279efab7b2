// The choice of the next token from its logits: src/sampling/choose-token.ts says what is chosen, docs/sampling.md why. Here it
// is done without a sort and with exponentials in vectors, where the logits are; each row by one thread.

#include "kernels.h"
#include "simd.h"

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
  uint64_t reserved;
};

// Exponentials of a vocabulary, with partial sums: sums of float32 stay short.
enum { sum_block = 1024 };

// weights[i] = e^((logits[i] - most) * scale); their sum.
static double exponentials(const float* logits, uint32_t count, float most, float scale, float* weights) {
  double total = 0;
  for (uint32_t block = 0; block < count; block += sum_block) {
    uint32_t end = count - block < sum_block ? count : block + sum_block;
    vfloat partial = {0};
    for (uint32_t i = block; i < end; i += lanes) {
      uint32_t left = end - i;
      vfloat weight = exp_v((load_up_to(logits + i, left) - most) * scale);
      store_up_to(weights + i, weight, left);
      partial += left >= lanes ? weight : load_part(weights + i, left);
    }
    total += sum(partial);
  }
  return total;
}

static const float largest_float = 3.402823466e38f;

// The largest logit; NaN where one is NaN or infinite, or none is a number. -Infinity may stand for what is never chosen.
static float largest_logit(const float* logits, uint32_t count) {
  vfloat most = splat(-__builtin_inff());
  vint valid = most == most;
  uint32_t whole = count - count % lanes;
  for (uint32_t i = 0; i < whole; i += lanes) {
    vfloat value = load(logits + i);
    valid &= value <= largest_float;
    most = maximum(most, value);
  }
  float result = -__builtin_inff();
  int all_valid = 1;
  for (uint32_t k = 0; k < lanes; k++) {
    all_valid &= valid[k] != 0;
    if (most[k] > result) result = most[k];
  }
  for (uint32_t i = whole; i < count; i++) {
    all_valid &= logits[i] <= largest_float;
    if (logits[i] > result) result = logits[i];
  }
  return all_valid && result >= -largest_float ? result : __builtin_nanf("");
}

static uint32_t pattern_of(float weight) {
  uint32_t bits;
  __builtin_memcpy(&bits, &weight, 4);
  return bits;
}

// Weights are from 0 to 1, so their bit patterns are ordered as they are. They are sorted into buckets digit by digit, from the
// upper bits, of which 1 has the largest.
enum { digit_buckets = 1024 };
static const uint32_t digit_shifts[] = {20, 10, 0};

struct histogram {
  uint32_t counts[digit_buckets];
  double sums[digit_buckets];
};

static inline void count_weight(struct histogram* histogram, float weight, uint32_t shift) {
  uint32_t bucket = pattern_of(weight) >> shift & (digit_buckets - 1);
  histogram->counts[bucket]++;
  histogram->sums[bucket] += (double)weight;
}

// Buckets by the first digit of at least the weights from `enough` on. (To leave out the lesser ones beside them would take
// longer, since there is no telling which they are.)
static void count_weights(const float* weights, uint32_t count, float enough, struct histogram* histogram) {
  __builtin_memset(histogram, 0, sizeof *histogram);
  for (uint32_t i = 0; i < count; i += lanes) {
    uint32_t end = count - i < lanes ? count : i + lanes;
    if (end == i + lanes && !any_true(load(weights + i) >= enough)) continue;
    for (uint32_t k = i; k < end; k++) count_weight(histogram, weights[k], digit_shifts[0]);
  }
}

// The tokens whose weights are at least `low` and less than `high`, in order; their number.
static uint32_t tokens_between(const float* weights, uint32_t count, double low, double high, int32_t* tokens) {
  // As float32 the least may be rounded up, so vectors are only looked over with something less.
  const float lowest = (float)(low * 0.999999);
  uint32_t found = 0;
  for (uint32_t i = 0; i < count; i += lanes) {
    uint32_t end = count - i < lanes ? count : i + lanes;
    if (end == i + lanes && !any_true(load(weights + i) >= lowest)) continue;
    for (uint32_t k = i; k < end; k++) {
      tokens[found] = (int32_t)k;
      found += ((double)weights[k] >= low) & ((double)weights[k] < high);
    }
  }
  return found;
}

// Goes down the buckets from the largest weights to where the count reaches `count` or the sum exceeds `sum`; -1 where neither
// comes about. `counted` and `summed` grow by what lies before.
static int32_t bucket_at(const struct histogram* histogram, uint32_t count, double sum, uint32_t* counted, double* summed) {
  for (int32_t bucket = digit_buckets - 1; bucket >= 0; bucket--) {
    if (histogram->counts[bucket] == 0) continue;
    if (*counted + histogram->counts[bucket] >= count || *summed + histogram->sums[bucket] > sum) return bucket;
    *counted += histogram->counts[bucket];
    *summed += histogram->sums[bucket];
  }
  return -1;
}

static float float_of(uint32_t pattern) {
  float value;
  __builtin_memcpy(&value, &pattern, 4);
  return value;
}

// The weight at which, from the largest down, the count of tokens reaches `count` or the sum of weights exceeds `sum`; -1 where
// neither comes about. `before` gets how many weights are larger. `tokens` is room for as many as there are weights.
static float weight_at(const struct histogram* first, const float* weights, uint32_t all, uint32_t count, double sum,
                       int32_t* tokens, uint32_t* before) {
  uint32_t counted = 0;
  double summed = 0;
  int32_t bucket = bucket_at(first, count, sum, &counted, &summed);
  if (bucket < 0) return -1;
  uint32_t prefix = (uint32_t)bucket << digit_shifts[0], mask = ~0u << digit_shifts[0];
  uint32_t inside = tokens_between(weights, all, float_of(prefix), float_of(prefix + (1u << digit_shifts[0])), tokens);
  for (uint32_t digit = 1; digit < 3; digit++) {
    struct histogram histogram = {0};
    for (uint32_t i = 0; i < inside; i++) {
      float weight = weights[tokens[i]];
      if ((pattern_of(weight) & mask) == prefix) count_weight(&histogram, weight, digit_shifts[digit]);
    }
    uint32_t counted_before = counted;
    double summed_before = summed;
    bucket = bucket_at(&histogram, count, sum, &counted, &summed);
    if (bucket < 0) {
      // The same sum, added in another order, falls short by its last bits: then it is the least weight.
      for (bucket = 0; histogram.counts[bucket] == 0;) bucket++;
      counted = counted_before;
      summed = summed_before;
      for (int32_t larger = bucket + 1; larger < digit_buckets; larger++) counted += histogram.counts[larger];
    }
    prefix |= (uint32_t)bucket << digit_shifts[digit];
    mask |= (uint32_t)(digit_buckets - 1) << digit_shifts[digit];
  }
  *before = counted;
  return float_of(prefix);
}

static double sum_of(const float* weights, uint32_t count) {
  vfloat partial = {0};
  uint32_t whole = count - count % lanes;
  for (uint32_t i = 0; i < whole; i += lanes) partial += load(weights + i);
  double total = sum(partial);
  for (uint32_t i = whole; i < count; i++) total += (double)weights[i];
  return total;
}

// Walks the weights in order to where their sum passes `target`; the last one that is not 0 where it never does.
static uint32_t draw(const float* weights, uint32_t count, double target) {
  uint32_t last = 0;
  for (uint32_t block = 0; block < count; block += sum_block) {
    uint32_t end = count - block < sum_block ? count : block + sum_block;
    double together = sum_of(weights + block, end - block);
    if (together == 0) continue;
    for (last = end - 1; weights[last] == 0;) last--;
    if (target >= together) {
      target -= together;
      continue;
    }
    for (uint32_t i = block; i < last; i++) {
      target -= (double)weights[i];
      if (target < 0) return i;
    }
    return last;
  }
  return last;
}

// The tokens that all cuts keep, in order; their number.
static uint32_t cut(const struct choice* choice, const float* weights, uint32_t count, double total, int32_t* tokens) {
  int limited = choice->top_k > 0 && choice->top_k < count;
  // All tokens that are less probable than this have together less than 1 - top_p, so the cut is not among them.
  double least = choice->top_p < 1 && !limited ? (1 - choice->top_p) * total / count * 0.999 : 0;
  double floor = choice->min_p;
  float limit = -1;
  uint32_t before = 0, ties = 0;
  struct histogram histogram;
  if (choice->top_p < 1 || limited) count_weights(weights, count, (float)least, &histogram);
  if (choice->top_p < 1) {
    double at = weight_at(&histogram, weights, count, 0xffffffff, choice->top_p * total, tokens, &before);
    if (at > floor) floor = at;
  }
  if (limited) {
    limit = weight_at(&histogram, weights, count, choice->top_k, __builtin_inf(), tokens, &before);
    ties = choice->top_k - before;
    if (limit > floor) floor = limit;
  }
  uint32_t candidates = tokens_between(weights, count, floor, 2, tokens);
  if (!limited || floor > limit) return candidates;
  // Of the tokens at the limit of top_k the first ones are kept.
  uint32_t kept = 0;
  for (uint32_t i = 0; i < candidates; i++) {
    if (weights[tokens[i]] == limit && ties == 0) continue;
    if (weights[tokens[i]] == limit) ties--;
    tokens[kept++] = tokens[i];
  }
  return kept;
}

static int32_t choose_token(const struct choice* choice, const float* logits, uint32_t count, float* weights, int32_t* tokens) {
  float most = largest_logit(logits, count);
  if (most != most) return -1;
  if (choice->temperature == 0) {
    uint32_t i = 0;
    while (logits[i] != most) i++;
    return (int32_t)i;
  }
  float inverse = (float)(1 / choice->temperature);
  int limited = choice->top_k > 0 && choice->top_k < count;
  if (!limited && choice->top_p >= 1 && choice->min_p == 0) {
    double total = exponentials(logits, count, most, inverse, weights);
    return (int32_t)draw(weights, count, choice->uniform * total);
  }
  double total = exponentials(logits, count, most, 1, weights);
  uint32_t kept = cut(choice, weights, count, total, tokens);
  if (kept == 0) return -1;
  // Kept ones move to the front: a token's place there is at most its id, so none is overwritten before it is read.
  for (uint32_t i = 0; i < kept; i++) weights[i] = choice->temperature == 1 ? weights[tokens[i]] : logits[tokens[i]];
  if (choice->temperature != 1) {
    total = exponentials(weights, kept, most, inverse, weights);
  } else {
    total = sum_of(weights, kept);
  }
  return tokens[draw(weights, kept, choice->uniform * total)];
}

// Chooses a token for every selected row that wants one; logits are left as they were.
//   address: logits [selected, width], choices [selected], room for count threads [2 * width each]
static void choose_tokens(const struct pass* pass, const struct record* record, uint32_t thread) {
  uint32_t width = record->width;
  uint32_t choosers = pass->thread_count < record->count ? pass->thread_count : record->count;
  if (thread >= choosers) return;
  float* weights = floats(record->address[2]) + (uint64_t)thread * 2 * width;
  int32_t* tokens = (int32_t*)(weights + width);
  for (uint32_t row = thread; row < pass->selected_count; row += choosers) {
    struct choice* choice = (struct choice*)(uintptr_t)record->address[1] + row;
    if (!choice->wanted) continue;
    float* logits = floats(record->address[0]) + (uint64_t)row * width;
    struct adjustment* adjustments = (struct adjustment*)(uintptr_t)choice->adjustments;
    for (uint32_t i = 0; i < choice->adjustment_count; i++) {
      adjustments[i].saved = logits[adjustments[i].token];
      logits[adjustments[i].token] += adjustments[i].amount;
    }
    choice->token = choose_token(choice, logits, width, weights, tokens);
    for (uint32_t i = 0; i < choice->adjustment_count; i++) logits[adjustments[i].token] = adjustments[i].saved;
  }
}
