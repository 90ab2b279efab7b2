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
    float* state = floats(segments[s].state);
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
      store_up_to(state + record->state[0] + c, numerator, left);
      store_up_to(state + record->state[1] + c, denominator, left);
      store_up_to(state + record->state[2] + c, max_exponent, left);
    }
  }
}
