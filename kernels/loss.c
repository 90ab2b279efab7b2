// The loss of training: cross-entropy fused with softmax. The gradient takes the place of the logits, so that no second matrix of
// that size is needed.

#include "kernels.h"
#include "simd.h"

static float largest(const float* x, uint32_t width, uint32_t* at) {
  float most = x[0];
  *at = 0;
  for (uint32_t i = 1; i < width; i++) {
    if (x[i] > most) most = x[i], *at = i;
  }
  return most;
}

// The natural logarithm of a normal number x = m 2^e: with s = (m - 1) / (m + 1), log m = 2 (s + s^3/3 + s^5/5 + ...).
static float natural_logarithm(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  int32_t exponent = (int32_t)(bits >> 23) - 127;
  bits = (bits & 0x7fffff) | (127 << 23);
  float mantissa;
  __builtin_memcpy(&mantissa, &bits, 4);
  if (mantissa > 1.41421356f) mantissa /= 2, exponent++;
  double s = (mantissa - 1.0) / (mantissa + 1.0), power = s, series = 0;
  for (int i = 1; i <= 15; i += 2) {
    series += power / i;
    power *= s * s;
  }
  return (float)(exponent * 0.69314718055994531 + 2 * series);
}

// loss[t] = log sum over i of e^(logits[t][i]) - logits[t][target[t]]; with softmax p, and n targets in the whole step,
//   dlogits[t][i] = (p[i] - (i is the target)) / n, and at the largest logit + penalty * logit / n
// The penalty is that of RWKV-LM's L2Wrap, which keeps logits from growing.
//   address: logits [selected, inputs], loss [selected, 1], dlogits [selected, inputs] or 0; they may be the logits
//   attribute: penalty
static void cross_entropy_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const int32_t* targets = (const int32_t*)(uintptr_t)pass->targets;
  uint32_t width = record->inputs;
  float share = 1 / (float)pass->target_count;
  struct range rows = share_of(pass->selected_count, 16, thread, pass->thread_count);
  for (uint32_t t = rows.begin; t < rows.end; t++) {
    const float* logits = floats(record->address[0]) + (uint64_t)t * width;
    uint32_t best;
    float most = largest(logits, width, &best);
    float target = logits[targets[t]];
    float* out = record->address[2] ? floats(record->address[2]) + (uint64_t)t * width : 0;
    vfloat total = {0};
    for (uint32_t i = 0; i < width; i += lanes) {
      uint32_t left = width - i;
      vfloat weight = exp_v(load_up_to(logits + i, left) - most);
      if (left < lanes) {
        float part[lanes] = {0};
        store_part(part, weight, left);
        weight = load(part);
      }
      total += weight;
      if (out) store_up_to(out + i, weight, left);
    }
    float all = sum(total);
    floats(record->address[1])[t] = most - target + natural_logarithm(all);
    if (!out) continue;
    float scale = share / all;
    for (uint32_t i = 0; i < width; i += lanes) {
      uint32_t left = width - i;
      store_up_to(out + i, load_up_to(out + i, left) * scale, left);
    }
    out[targets[t]] -= share;
    out[best] += most * record->attribute[0].number * share;
  }
}
