// The wkv recurrence (arXiv 2305.13048v2, section 3.1.2, equation 16) in its numerically safe form (appendix D): sums are kept
// relative to e^(largest exponent so far), so that no key overflows. It walks along time; channels are independent, and
// threads share them.

#include "kernels.h"
#include "simd.h"

// out[t] = wkv(key, value)[t], times multiplier[t] where there is one.
//   address: key, value [tokens, width], decay, first [width], multiplier [tokens, width] or 0, out [tokens, width]
//   state: numerator, denominator, maxExponent, each [width]
static void wkv_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  const float* key = floats(record->address[0]);
  const float* value = floats(record->address[1]);
  const float* decay = floats(record->address[2]);
  const float* first = floats(record->address[3]);
  const float* multiplier = floats(record->address[4]);
  float* out = floats(record->address[5]);
  uint32_t width = record->width;
  struct range channels = channels_of(width, thread, pass->thread_count);
  for (uint32_t s = 0; s < pass->segment_count; s++) {
    const float* state = floats(segments[s].state);
    float* next_state = floats(segments[s].next_state);
    for (uint32_t c = channels.begin; c < channels.end; c += lanes) {
      uint32_t left = channels.end - c;
      vfloat numerator = load_up_to(state + record->state[0] + c, left);
      vfloat denominator = load_up_to(state + record->state[1] + c, left);
      vfloat max_exponent = load_up_to(state + record->state[2] + c, left);
      vfloat w = load_up_to(decay + c, left);
      vfloat u = load_up_to(first + c, left);
      for (uint32_t t = segments[s].start; t < segments[s].start + segments[s].count; t++) {
        uint64_t at = (uint64_t)t * width + c;
        vfloat k = load_up_to(key + at, left);
        vfloat v = load_up_to(value + at, left);

        vfloat q = maximum(max_exponent, u + k);
        vfloat past = exp_v(max_exponent - q);
        vfloat present = exp_v(u + k - q);
        vfloat average = (past * numerator + present * v) / (past * denominator + present);
        if (multiplier) average *= load_up_to(multiplier + at, left);
        store_up_to(out + at, average, left);

        q = maximum(max_exponent + w, k);
        past = exp_v(max_exponent + w - q);
        present = exp_v(k - q);
        numerator = past * numerator + present * v;
        denominator = past * denominator + present;
        max_exponent = q;
      }
      store_up_to(next_state + record->state[0] + c, numerator, left);
      store_up_to(next_state + record->state[1] + c, denominator, left);
      store_up_to(next_state + record->state[2] + c, max_exponent, left);
    }
  }
}

struct wkv_sums {
  vfloat numerator, denominator, max_exponent;
};

// The sums after one more key and value.
static inline struct wkv_sums wkv_next(struct wkv_sums sums, vfloat k, vfloat v, vfloat w) {
  vfloat q = maximum(sums.max_exponent + w, k);
  vfloat past = exp_v(sums.max_exponent + w - q);
  vfloat present = exp_v(k - q);
  return (struct wkv_sums){past * sums.numerator + present * v, past * sums.denominator + present, q};
}

// The gradient of wkv_forward. A first walk along time leaves the sums before each token in `workspace`; a second one, back,
// carries the gradients of the sums after each token, themselves relative to e^(an exponent). With Q[t] the exponent of
// the denominator at t, that is at least those of all terms in it, their exponent is at most max over t' > t of
// w (t' - 1 - t) - Q[t'], so no product below exceeds 1 before it is multiplied by values and gradients.
//   address: key, value [tokens, width], decay, first [width], dout [tokens, width], workspace [tokens, 3 * width];
//     then dkey, dvalue [tokens, width], ddecay, dfirst, and the gradients of the initial numerator, denominator and
//     maxExponent [width], summed over segments; each 0 where it is not wanted
//   state: numerator, denominator, maxExponent, each [width]
static void wkv_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  const float* key = floats(record->address[0]);
  const float* value = floats(record->address[1]);
  const float* dout = floats(record->address[4]);
  float* workspace = floats(record->address[5]);
  float* dkey = floats(record->address[6]);
  float* dvalue = floats(record->address[7]);
  uint32_t width = record->width;
  struct range channels = fine_channels_of(width, thread, pass->thread_count);
  for (uint32_t c = channels.begin; c < channels.end; c += lanes) {
    uint32_t left = channels.end - c;
    vfloat w = load_up_to(floats(record->address[2]) + c, left);
    vfloat u = load_up_to(floats(record->address[3]) + c, left);
    vfloat totals[5] = {0};  // ddecay, dfirst, dnumerator, ddenominator, dmaxExponent
    for (uint32_t s = 0; s < pass->segment_count; s++) {
      const float* state = floats(segments[s].state);
      struct wkv_sums sums = {load_up_to(state + record->state[0] + c, left), load_up_to(state + record->state[1] + c, left),
                              load_up_to(state + record->state[2] + c, left)};
      uint32_t end = segments[s].start + segments[s].count;
      for (uint32_t t = segments[s].start; t < end; t++) {
        uint64_t at = (uint64_t)t * width + c;
        float* saved = workspace + (uint64_t)t * 3 * width + c;
        store_up_to(saved, sums.numerator, left);
        store_up_to(saved + width, sums.denominator, left);
        store_up_to(saved + 2 * width, sums.max_exponent, left);
        sums = wkv_next(sums, load_up_to(key + at, left), load_up_to(value + at, left), w);
      }

      vfloat dnumerator = {0}, ddenominator = {0}, exponent = splat(-1e30f);
      for (uint32_t t = end; t-- > segments[s].start;) {
        uint64_t at = (uint64_t)t * width + c;
        const float* saved = workspace + (uint64_t)t * 3 * width + c;
        sums = (struct wkv_sums){load_up_to(saved, left), load_up_to(saved + width, left), load_up_to(saved + 2 * width, left)};
        vfloat k = load_up_to(key + at, left);
        vfloat v = load_up_to(value + at, left);

        vfloat q = maximum(sums.max_exponent, u + k);
        vfloat past = exp_v(sums.max_exponent - q);
        vfloat present = exp_v(u + k - q);
        vfloat share = 1 / (past * sums.denominator + present);
        vfloat average = (past * sums.numerator + present * v) * share;
        vfloat scaled = load_up_to(dout + at, left) * share;

        // Through this token's own term of wkv[t], and through the sums that later tokens see.
        vfloat own = scaled * present;
        vfloat later = exp_v(k + exponent);
        vfloat dfirst = own * (v - average);
        if (dvalue) store_up_to(dvalue + at, own + later * dnumerator, left);
        if (dkey) store_up_to(dkey + at, dfirst + later * (dnumerator * v + ddenominator), left);
        totals[0] += exp_v(w + sums.max_exponent + exponent) * (dnumerator * sums.numerator + ddenominator * sums.denominator);
        totals[1] += dfirst;

        vfloat before = maximum(exponent + w, -q);
        vfloat carried = exp_v(exponent + w - before);
        vfloat added = exp_v(-q - before) * scaled;
        dnumerator = carried * dnumerator + added;
        ddenominator = carried * ddenominator - added * average;
        exponent = before;
      }
      vfloat scale = exp_v(load_up_to(state + record->state[2] + c, left) + exponent);
      vfloat numerator = load_up_to(state + record->state[0] + c, left);
      vfloat denominator = load_up_to(state + record->state[1] + c, left);
      totals[2] += scale * dnumerator;
      totals[3] += scale * ddenominator;
      totals[4] += scale * (dnumerator * numerator + ddenominator * denominator);
    }
    for (uint32_t i = 0; i < 5; i++) {
      if (record->address[8 + i]) store_up_to(floats(record->address[8 + i]) + c, totals[i], left);
    }
  }
}
