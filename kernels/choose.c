// The choice of the next token from its logits: src/sampling/choose-token.ts says what is chosen, docs/sampling.md why. Here it
// is done without a sort and with exponentials in vectors, where the logits are; each row by one thread.

#include "choice.h"
#include "kernels.h"
#include "simd.h"

// Sums of a vocabulary are those of its blocks, so that sums of float32 stay short.
enum { sum_block = 1024 };

static inline uint32_t block_end(uint32_t block, uint32_t count) {
  return count - block < sum_block ? count : block + sum_block;
}

// The weights of a row, e^(logit - largest), and the sum of each block of them.
struct weights {
  float* values;
  float* block_sums;
  uint32_t count;
};

// weights = e^((logits - most) * scale); their sum.
static double exponentials(const float* logits, float most, float scale, struct weights weights) {
  double total = 0;
  for (uint32_t block = 0; block < weights.count; block += sum_block) {
    uint32_t end = block_end(block, weights.count);
    vfloat partial = {0};
    for (uint32_t i = block; i < end; i += lanes) {
      uint32_t left = end - i;
      vfloat weight = exp_of_at_most_zero((load_up_to(logits + i, left) - most) * scale);
      store_up_to(weights.values + i, weight, left);
      partial += left >= lanes ? weight : load_part(weights.values + i, left);
    }
    weights.block_sums[block / sum_block] = sum(partial);
    total += (double)weights.block_sums[block / sum_block];
  }
  return total;
}

static const float largest_float = 3.402823466e38f;

// The largest logit; NaN when one is NaN or +Infinity or none is finite. -Infinity marks tokens that are never sampled.
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

static float float_of(uint32_t pattern) {
  float value;
  __builtin_memcpy(&value, &pattern, 4);
  return value;
}

// The least float32 that is not less than `value`, which is from 0 to 1.
static float least_float_from(double value) {
  float nearest = (float)value;
  return (double)nearest < value ? float_of(pattern_of(nearest) + 1) : nearest;
}

// What lies on either side of a pivot: the count, sum and least of the weights that reach it, and the largest below it that is
// at least `low`, or else `low`.
struct sides {
  uint32_t count;
  double sum;
  float least;
  float largest_below;
};

static struct sides sides_of(const float* weights, uint32_t count, float pivot, float low) {
  struct sides sides = {0, 0, 1, low};
  vfloat least = splat(1), below = splat(low);
  vint counts = {0};
  uint32_t whole = count - count % lanes;
  for (uint32_t block = 0; block < whole; block += sum_block) {
    vfloat partial = {0};
    for (uint32_t i = block; i < block_end(block, whole); i += lanes) {
      vfloat value = load(weights + i);
      vint reaches = value >= pivot;
      counts -= reaches;
      partial += (vfloat)(reaches & (vint)value);
      least = minimum(least, choose(reaches, value, splat(1)));
      below = maximum(below, (vfloat)(~reaches & (vint)value));
    }
    sides.sum += (double)sum(partial);
  }
  for (uint32_t k = 0; k < lanes; k++) {
    sides.count += (uint32_t)counts[k];
    if (least[k] < sides.least) sides.least = least[k];
    if (below[k] > sides.largest_below) sides.largest_below = below[k];
  }
  for (uint32_t i = whole; i < count; i++) {
    if (weights[i] >= pivot) {
      sides.count++;
      sides.sum += (double)weights[i];
      if (weights[i] < sides.least) sides.least = weights[i];
    } else if (weights[i] > sides.largest_below) {
      sides.largest_below = weights[i];
    }
  }
  return sides;
}

// Copies the weights from `low` to `high` to `inside`, which may be where they are; their number.
static uint32_t weights_between(const float* weights, uint32_t count, float low, float high, float* inside) {
  uint32_t found = 0;
  for (uint32_t i = 0; i < count; i += lanes) {
    uint32_t end = count - i < lanes ? count : i + lanes;
    if (end == i + lanes && !any_true((load(weights + i) >= low) & (load(weights + i) <= high))) continue;
    for (uint32_t k = i; k < end; k++) {
      float weight = weights[k];
      inside[found] = weight;
      found += (weight >= low) & (weight <= high);
    }
  }
  return found;
}

// The weight from `low` on at which, from the largest down, the count of tokens reaches `count` or the sum of weights exceeds
// `sum`; `low` where neither comes about. `above` gets how many weights are larger. Weights are from 0 to 1, so their bit
// patterns are ordered as they are: each step halves the range of patterns that can contain it, and continues with weights that
// exist.
static float weight_at(struct weights all, float low, uint32_t count, double sum, float* scratch, uint32_t* above) {
  const float* weights = all.values;
  uint32_t size = all.count;
  float high = 1;
  uint32_t from_low = size, above_high = 0, dropped = 0;  // how many reach low, exceed high, or are no longer looked at
  double sum_above_high = 0, dropped_sum = 0;
  while (low < high) {
    float pivot = float_of(pattern_of(low) + (pattern_of(high) - pattern_of(low) + 1) / 2);
    struct sides sides = sides_of(weights, size, pivot, low);
    sides.count += dropped;
    sides.sum += dropped_sum;
    if (sides.count >= count || sides.sum > sum) {
      low = sides.least;
      from_low = sides.count;
    } else {
      high = sides.largest_below;
      above_high = sides.count;
      sum_above_high = sides.sum;
    }
    // What is left is copied together once that saves more than it costs.
    if (from_low - above_high < size / 32) {
      size = weights_between(weights, size, low, high, scratch);
      weights = scratch;
      dropped = above_high;
      dropped_sum = sum_above_high;
    }
  }
  *above = above_high;
  return low;
}

// The least weight that all cuts keep; each is only looked for from where the one before ends. Of the tokens at that weight the
// first `ties` are kept. `scratch` is for as many weights.
static float least_kept(const struct choice* choice, struct weights weights, double total, float* scratch, uint32_t* ties) {
  float floor = least_float_from(choice->min_p);
  uint32_t above;
  if (choice->top_p < 1) {
    // All tokens that are less probable than this have together less than 1 - top_p, so the cut is not among them.
    float least = (float)((1 - choice->top_p) * total / weights.count * 0.999);
    if (least > floor) floor = least;
    floor = weight_at(weights, floor, ~0u, choice->top_p * total, scratch, &above);
  }
  *ties = weights.count;
  if (choice->top_k > 0 && choice->top_k < weights.count) {
    floor = weight_at(weights, floor, choice->top_k, __builtin_inf(), scratch, &above);
    *ties = choice->top_k - above;
  }
  return floor;
}

// Selects the first `ties` of the lanes that equal `floor`, and reduces `ties` by their number.
static vint first_ties(vint equal, uint32_t* ties) {
  uint32_t found = (uint32_t)sum(choose(equal, splat(1), splat(0)));
  if (found <= *ties) {
    *ties -= found;
    return equal;
  }
  for (uint32_t k = 0; k < lanes; k++) {
    if (equal[k] && *ties == 0) equal[k] = 0;
    else if (equal[k]) --*ties;
  }
  return equal;
}

// The factor of logits; of a temperature that float32 cannot hold the inverse of, its largest number.
static float inverse_of(double temperature) {
  double inverse = 1 / temperature;
  return inverse < (double)largest_float ? (float)inverse : largest_float;
}

// Takes what is kept to the power of 1 / temperature, from its logits, and sets the rest to 0; the sum.
static double keep(const struct choice* choice, const float* logits, float most, float floor, uint32_t ties,
                   struct weights weights) {
  float inverse = inverse_of(choice->temperature);
  double total = 0;
  for (uint32_t block = 0; block < weights.count; block += sum_block) {
    uint32_t end = block_end(block, weights.count);
    vfloat partial = {0};
    for (uint32_t i = block; i < end; i += lanes) {
      vfloat weight = load_up_to(weights.values + i, end - i);
      vint kept = weight >= floor;
      vint equal = weight == floor;
      if (ties < weights.count && any_true(equal)) kept = (weight > floor) | first_ties(equal, &ties);
      if (!any_true(kept)) {
        store_up_to(weights.values + i, splat(0), end - i);
        continue;
      }
      // Past the end of a row weights are 0, and stay it.
      kept &= weight > 0;
      if (inverse != 1) weight = exp_of_at_most_zero((load_up_to(logits + i, end - i) - most) * inverse);
      weight = (vfloat)(kept & (vint)weight);
      store_up_to(weights.values + i, weight, end - i);
      partial += weight;
    }
    weights.block_sums[block / sum_block] = sum(partial);
    total += (double)weights.block_sums[block / sum_block];
  }
  return total;
}

// Walks the weights in order to where their sum passes `target`; the last one that is not 0 where it never does.
static uint32_t sample_index(struct weights weights, double target) {
  uint32_t last = 0;
  for (uint32_t block = 0; block < weights.count; block += sum_block) {
    double together = (double)weights.block_sums[block / sum_block];
    if (together == 0) continue;
    uint32_t end = block_end(block, weights.count);
    for (last = end - 1; weights.values[last] == 0;) last--;
    if (target >= together) {
      target -= together;
      continue;
    }
    for (uint32_t i = block; i < last; i++) {
      target -= (double)weights.values[i];
      if (target < 0) return i;
    }
    return last;
  }
  return last;
}

// The first index of a value that is there.
static uint32_t index_of(float value, const float* logits, uint32_t count) {
  uint32_t i = 0;
  while (i + lanes <= count && !any_true(load(logits + i) == value)) i += lanes;
  while (logits[i] != value) i++;
  return i;
}

// `scratch` is for as many floats as there are weights.
static int32_t choose_token(const struct choice* choice, const float* logits, struct weights weights, float* scratch) {
  float most = largest_logit(logits, weights.count);
  if (most != most) return -1;
  if (choice->temperature == 0) return (int32_t)index_of(most, logits, weights.count);
  int limited = choice->top_k > 0 && choice->top_k < weights.count;
  if (!limited && choice->top_p >= 1 && choice->min_p == 0) {
    double total = exponentials(logits, most, inverse_of(choice->temperature), weights);
    return (int32_t)sample_index(weights, choice->uniform * total);
  }
  double total = exponentials(logits, most, 1, weights);
  uint32_t ties;
  float floor = least_kept(choice, weights, total, scratch, &ties);
  total = keep(choice, logits, most, floor, ties, weights);
  return (int32_t)sample_index(weights, choice->uniform * total);
}

// Floats: the weights, those that a cut is looked for among, logits that a mask was applied to, and the sums of blocks.
// choice-records.ts has it too.
static uint64_t scratch_of_chooser(uint32_t width) { return 3 * (uint64_t)width + (width + sum_block - 1) / sum_block; }

// The logits of the tokens that a mask allows; -Infinity for the others.
static void apply_mask(const uint32_t* mask, const float* logits, float* to, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    to[i] = (mask[i / 32] >> (i % 32)) & 1 ? logits[i] : -__builtin_inff();
  }
}

// Samples a token for every selected row that asks for one. Logits are not changed.
//   address: logits [selected, width], choices [selected], scratch for count threads [scratch_of_chooser each]
static void choose_tokens(const struct pass* pass, const struct record* record, uint32_t thread) {
  uint32_t width = record->width;
  uint32_t choosers = pass->thread_count < record->attribute[0].count ? pass->thread_count : record->attribute[0].count;
  if (thread >= choosers) return;
  float* scratch = floats(record->address[2]) + thread * scratch_of_chooser(width);
  struct weights weights = {scratch, scratch + 3 * (uint64_t)width, width};
  float* allowed = scratch + 2 * (uint64_t)width;
  for (uint32_t row = thread; row < pass->selected_count; row += choosers) {
    struct choice* choice = (struct choice*)(uintptr_t)record->address[1] + row;
    if (!choice->wanted) continue;
    float* logits = floats(record->address[0]) + (uint64_t)row * width;
    struct adjustment* adjustments = (struct adjustment*)(uintptr_t)choice->adjustments;
    for (uint32_t i = 0; i < choice->adjustment_count; i++) {
      adjustments[i].saved = logits[adjustments[i].token];
      logits[adjustments[i].token] += adjustments[i].amount;
    }
    const float* from = logits;
    if (choice->mask) {
      apply_mask((const uint32_t*)(uintptr_t)choice->mask, logits, allowed, width);
      from = allowed;
    }
    choice->token = choose_token(choice, from, weights, scratch + width);
    for (uint32_t i = 0; i < choice->adjustment_count; i++) logits[adjustments[i].token] = adjustments[i].saved;
  }
}
