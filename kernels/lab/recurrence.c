// Recurrent networks whose step needs all of the step before: they walk token by token, and only sequences run side by side.
// Threads share the segments.

#include "kernels.h"
#include "products.h"

static inline float hyperbolic_tangent(float x) { return tanh_v(splat(x))[0]; }
static inline float sigmoid(float x) { return 1 / (1 + exp_v(splat(-x))[0]); }

// out[o] += sum over i of weight[o][i] * x[i]
static inline void add_product(float* out, const float* weight, const float* x, uint32_t width) {
  for (uint32_t o = 0; o < width; o++) out[o] += dot_product(weight + (uint64_t)o * width, x, width);
}

// out[i] += sum over o of gradient[o] * weight[o][i]
static inline void add_transposed_product(float* out, const float* weight, const float* gradient, uint32_t width) {
  for (uint32_t o = 0; o < width; o++) add_scaled(out, weight + (uint64_t)o * width, gradient[o], width);
}

// The simple recurrent network (Elman, Cognitive Science 14, 1990): h[t] = tanh(x[t] + U h[t-1]).
//   address: x [tokens, width], U [width, width], h [tokens, width]; state: h [width]
static void elman_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  uint32_t width = record->width;
  float* out = floats(record->address[2]);
  struct range units = share_of(pass->segment_count, 1, thread, pass->thread_count);
  for (uint32_t s = units.begin; s < units.end; s++) {
    for (uint32_t t = 0; t < segments[s].count; t++) {
      uint64_t at = (uint64_t)(segments[s].start + t) * width;
      for (uint32_t c = 0; c < width; c++) out[at + c] = floats(record->address[0])[at + c];
      add_product(out + at, floats(record->address[1]), row_before(&segments[s], record, out, t), width);
      for (uint32_t c = 0; c < width; c++) out[at + c] = hyperbolic_tangent(out[at + c]);
    }
    const float* last = row_before(&segments[s], record, out, segments[s].count);
    for (uint32_t c = 0; c < width; c++) (floats(segments[s].next_state) + record->state[0])[c] = last[c];
  }
}

// The gradient of elman_forward for x, walking back: dx[t] = (dh[t] + U^T dx[t+1]) (1 - h[t]^2).
//   address: h, dh [tokens, width], U [width, width], dx [tokens, width]
static void elman_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  uint32_t width = record->width;
  const float* h = floats(record->address[0]);
  float* dx = floats(record->address[3]);
  struct range units = share_of(pass->segment_count, 1, thread, pass->thread_count);
  for (uint32_t s = units.begin; s < units.end; s++) {
    for (uint32_t t = segments[s].count; t-- > 0;) {
      uint64_t at = (uint64_t)(segments[s].start + t) * width;
      for (uint32_t c = 0; c < width; c++) dx[at + c] = floats(record->address[1])[at + c];
      if (t + 1 < segments[s].count) add_transposed_product(dx + at, floats(record->address[2]), dx + at + width, width);
      for (uint32_t c = 0; c < width; c++) dx[at + c] *= 1 - h[at + c] * h[at + c];
    }
  }
}

// The gated recurrent unit (Cho et al., arXiv 1406.1078, equations 5 to 8), with z how much of the state is kept:
//   z = sigmoid(xz + Uz h'), r = sigmoid(xr + Ur h'), n = tanh(xn + Un (r h')), h = z h' + (1 - z) n, where h' = h[t-1]
//   address: xz, xr, xn [tokens, width], Uz, Ur, Un [width, width], h [tokens, width]; then z, r, n and r h' [tokens, width],
//     each 0 where it is not wanted
//   state: h [width]
static void gru_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  uint32_t width = record->width;
  float* out = floats(record->address[6]);
  float z[width], r[width], n[width], kept[width];
  struct range units = share_of(pass->segment_count, 1, thread, pass->thread_count);
  for (uint32_t s = units.begin; s < units.end; s++) {
    for (uint32_t t = 0; t < segments[s].count; t++) {
      uint64_t at = (uint64_t)(segments[s].start + t) * width;
      const float* before = row_before(&segments[s], record, out, t);
      for (uint32_t c = 0; c < width; c++) {
        z[c] = floats(record->address[0])[at + c];
        r[c] = floats(record->address[1])[at + c];
        n[c] = floats(record->address[2])[at + c];
      }
      add_product(z, floats(record->address[3]), before, width);
      add_product(r, floats(record->address[4]), before, width);
      for (uint32_t c = 0; c < width; c++) {
        z[c] = sigmoid(z[c]);
        r[c] = sigmoid(r[c]);
        kept[c] = r[c] * before[c];
      }
      add_product(n, floats(record->address[5]), kept, width);
      for (uint32_t c = 0; c < width; c++) {
        n[c] = hyperbolic_tangent(n[c]);
        out[at + c] = z[c] * before[c] + (1 - z[c]) * n[c];
      }
      const float* gates[] = {z, r, n, kept};
      for (uint32_t i = 0; i < 4; i++) {
        if (!record->address[7 + i]) continue;
        for (uint32_t c = 0; c < width; c++) floats(record->address[7 + i])[at + c] = gates[i][c];
      }
    }
    const float* last = row_before(&segments[s], record, out, segments[s].count);
    for (uint32_t c = 0; c < width; c++) (floats(segments[s].next_state) + record->state[0])[c] = last[c];
  }
}

// The gradient of gru_forward for xz, xr and xn, walking back with the gradient of h.
//   address: h, z, r, n, dh [tokens, width], Uz, Ur, Un [width, width]; then dxz, dxr, dxn [tokens, width]
//   state: h [width]
static void gru_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  uint32_t width = record->width;
  const float *z = floats(record->address[1]), *r = floats(record->address[2]), *n = floats(record->address[3]);
  float *dz = floats(record->address[8]), *dr = floats(record->address[9]), *dn = floats(record->address[10]);
  float carried[width], reset[width];
  struct range units = share_of(pass->segment_count, 1, thread, pass->thread_count);
  for (uint32_t s = units.begin; s < units.end; s++) {
    for (uint32_t c = 0; c < width; c++) carried[c] = 0;
    for (uint32_t t = segments[s].count; t-- > 0;) {
      uint64_t at = (uint64_t)(segments[s].start + t) * width;
      const float* before = row_before(&segments[s], record, floats(record->address[0]), t);
      for (uint32_t c = 0; c < width; c++) {
        float dh = floats(record->address[4])[at + c] + carried[c];
        dz[at + c] = dh * (before[c] - n[at + c]) * z[at + c] * (1 - z[at + c]);
        dn[at + c] = dh * (1 - z[at + c]) * (1 - n[at + c] * n[at + c]);
        carried[c] = dh * z[at + c];
        reset[c] = 0;
      }
      add_transposed_product(reset, floats(record->address[7]), dn + at, width);
      for (uint32_t c = 0; c < width; c++) {
        dr[at + c] = reset[c] * before[c] * r[at + c] * (1 - r[at + c]);
        carried[c] += reset[c] * r[at + c];
      }
      add_transposed_product(carried, floats(record->address[5]), dz + at, width);
      add_transposed_product(carried, floats(record->address[6]), dr + at, width);
    }
  }
}
