// The wkv recurrence (arXiv 2305.13048v2, section 3.1.2, equation 16) in its numerically safe form (appendix D): sums are kept
// relative to e^(largest exponent so far), so that no key overflows. It walks along time; sequences and channels
// are independent, and threads share them.

#include "kernels.h"
#include "simd.h"

struct wkv_sums {
  vfloat numerator, denominator, max_exponent;
};

static inline struct wkv_sums wkv_state(const struct record* record, const float* state, uint32_t c, uint32_t left) {
  return (struct wkv_sums){load_up_to(state + record->state[0] + c, left), load_up_to(state + record->state[1] + c, left),
                           load_up_to(state + record->state[2] + c, left)};
}

// The sums after one more key and value.
static inline struct wkv_sums wkv_next(struct wkv_sums sums, vfloat k, vfloat v, vfloat w) {
  vfloat q = maximum(sums.max_exponent + w, k);
  vfloat past = exp_v(sums.max_exponent + w - q);
  vfloat present = exp_v(k - q);
  return (struct wkv_sums){past * sums.numerator + present * v, past * sums.denominator + present, q};
}

static void wkv_walk(const struct record* record, const struct segment* segment, struct range channels) {
  const float* key = floats(record->address[0]);
  const float* value = floats(record->address[1]);
  const float* multiplier = floats(record->address[4]);
  float* out = floats(record->address[6]);
  float* next_state = floats(segment->next_state);
  for (uint32_t c = channels.begin; c < channels.end; c += lanes) {
    uint32_t left = channels.end - c;
    struct wkv_sums sums = wkv_state(record, floats(segment->state), c, left);
    vfloat w = load_up_to(floats(record->address[2]) + c, left);
    vfloat u = load_up_to(floats(record->address[3]) + c, left);
    for (uint32_t t = segment->start; t < segment->start + segment->count; t++) {
      uint64_t at = (uint64_t)t * record->width + c;
      vfloat k = load_up_to(key + at, left);
      vfloat v = load_up_to(value + at, left);

      vfloat q = maximum(sums.max_exponent, u + k);
      vfloat past = exp_v(sums.max_exponent - q);
      vfloat present = exp_v(u + k - q);
      vfloat average = (past * sums.numerator + present * v) / (past * sums.denominator + present);
      if (multiplier) average *= load_up_to(multiplier + at, left);
      store_up_to(out + at, average, left);
      sums = wkv_next(sums, k, v, w);
    }
    store_up_to(next_state + record->state[0] + c, sums.numerator, left);
    store_up_to(next_state + record->state[1] + c, sums.denominator, left);
    store_up_to(next_state + record->state[2] + c, sums.max_exponent, left);
  }
}

// out[t] = wkv(key, value)[t], times multiplier[t] where there is one.
//   address: key, value [tokens, width], decay, first [width], multiplier [tokens, width] or 0, out [tokens, width]
//   state: numerator, denominator, maxExponent, each [width]
// Between barriers on both sides threads may share the sequences, too; else the channels are those of each thread.
static void wkv_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  if (record->barrier_before == BARRIER_ALWAYS && record->barrier_after == BARRIER_ALWAYS) {
    struct range units = share_of(unit_count(pass->segment_count, record->width), 1, thread, pass->thread_count);
    for (uint32_t i = units.begin; i < units.end; i++) {
      struct unit unit = unit_at(i, record->width);
      wkv_walk(record, &segments[unit.segment], unit.channels);
    }
  } else {
    struct range channels = channels_of(record->width, thread, pass->thread_count);
    for (uint32_t s = 0; s < pass->segment_count; s++) wkv_walk(record, &segments[s], channels);
  }
}
