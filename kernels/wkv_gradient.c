// The gradient of the wkv recurrence of RWKV-4.

#include "kernels.h"
#include "simd.h"

// The gradient of wkv_forward. A first pass over time stores the sums before each token in scratch memory; a second one,
// backward, carries the gradients of the sums after each token, themselves relative to e^(an exponent). With Q[t] the exponent of
// the denominator at t, which is at least as large as each of its terms, so their exponent is at most max over t' > t of w (t' -
// 1 - t) - Q[t'], so no product below exceeds 1 before it is multiplied by values and gradients.
//   address: key, value [tokens, width], decay, first [width], dout [tokens, width], totals [tokens, 5 * width]: a workspace, and
//     in the end in each sequence's first row the gradients of decay, first, and the initial numerator, denominator and
//     maxExponent; then dkey, dvalue [tokens, width], each 0 where it is not wanted
//   state: numerator, denominator, maxExponent, each [width]
static void wkv_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  const float* key = floats(record->address[0]);
  const float* value = floats(record->address[1]);
  const float* dout = floats(record->address[2]);
  float* dkey = floats(record->address[5]);
  float* dvalue = floats(record->address[6]);
  uint32_t width = record->width;
  struct range units = share_of(unit_count(pass->segment_count, width), 1, thread, pass->thread_count);
  for (uint32_t i = units.begin; i < units.end; i++) {
    struct unit unit = unit_at(i, width);
    const struct segment* segment = &segments[unit.segment];
    uint32_t end = segment->start + segment->count;
    for (uint32_t c = unit.channels.begin; c < unit.channels.end; c += lanes) {
      uint32_t left = unit.channels.end - c;
      vfloat w = load_up_to(floats(record->address[3]) + c, left);
      vfloat u = load_up_to(floats(record->address[4]) + c, left);
      float* workspace = floats(record->address[7]) + c;
      struct wkv_sums initial = wkv_state(record, floats(segment->state), c, left), sums = initial;
      for (uint32_t t = segment->start; t < end; t++) {
        uint64_t at = (uint64_t)t * width + c;
        float* saved = workspace + (uint64_t)t * 5 * width;
        store_up_to(saved, sums.numerator, left);
        store_up_to(saved + width, sums.denominator, left);
        store_up_to(saved + 2 * width, sums.max_exponent, left);
        sums = wkv_next(sums, load_up_to(key + at, left), load_up_to(value + at, left), w);
      }

      vfloat dnumerator = {0}, ddenominator = {0}, exponent = splat(-1e30f), ddecay = {0}, dfirst = {0};
      for (uint32_t t = end; t-- > segment->start;) {
        uint64_t at = (uint64_t)t * width + c;
        const float* saved = workspace + (uint64_t)t * 5 * width;
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
        if (dvalue) store_up_to(dvalue + at, own + later * dnumerator, left);
        if (dkey) store_up_to(dkey + at, own * (v - average) + later * (dnumerator * v + ddenominator), left);
        ddecay += exp_v(w + sums.max_exponent + exponent) * (dnumerator * sums.numerator + ddenominator * sums.denominator);
        dfirst += own * (v - average);

        vfloat before = maximum(exponent + w, -q);
        vfloat carried = exp_v(exponent + w - before);
        vfloat added = exp_v(-q - before) * scaled;
        dnumerator = carried * dnumerator + added;
        ddenominator = carried * ddenominator - added * average;
        exponent = before;
      }
      vfloat scale = exp_v(initial.max_exponent + exponent);
      vfloat totals[] = {ddecay, dfirst, scale * dnumerator, scale * ddenominator,
                         scale * (dnumerator * initial.numerator + ddenominator * initial.denominator)};
      for (uint32_t n = 0; n < 5; n++) store_up_to(workspace + ((uint64_t)segment->start * 5 + n) * width, totals[n], left);
    }
  }
}
