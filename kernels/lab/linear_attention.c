// Linear attention (Katharopoulos et al., "Transformers are RNNs", arXiv 2006.16236, equations 16 to 20) over features that are
// not negative: instead of keys and values the state holds the sum of their outer products, and of the keys. Threads share the
// heads of all segments.

#include "kernels.h"
#include "products.h"

enum { widest_linear_head = 64 };

// rows[i] += left[i] * right, for all i < size
static inline void add_outer(float* rows, const float* left, const float* right, uint32_t size) {
  for (uint32_t i = 0; i < size; i++) add_scaled(rows + i * size, right, left[i], size);
}

// out = left . rows
static inline void multiply_rows(const float* left, const float* rows, uint32_t size, float* out) {
  for (uint32_t i = 0; i < size; i++) out[i] = 0;
  for (uint32_t i = 0; i < size; i++) add_scaled(out, rows + i * size, left[i], size);
}

// S[t] = S[t-1] + key[t] value[t]^T, z[t] = z[t-1] + key[t], out[t] = query[t] . S[t] / (query[t] . z[t])
//   address: query, key, value [tokens, width], out [tokens, width]
//   state: S [heads, size, size], z [width]; attribute: heads
static void linear_attention_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  uint32_t width = record->width, heads = record->attribute[0].count, size = width / heads;
  struct range units = share_of(pass->segment_count * heads, 1, thread, pass->thread_count);
  for (uint32_t unit = units.begin; unit < units.end; unit++) {
    const struct segment* segment = &segments[unit / heads];
    uint32_t h = unit % heads;
    const float* state = floats(segment->state);
    float* sums = floats(segment->next_state) + record->state[0] + h * size * size;
    float* keys = floats(segment->next_state) + record->state[1] + h * size;
    for (uint32_t i = 0; i < size * size; i++) sums[i] = state[record->state[0] + h * size * size + i];
    for (uint32_t i = 0; i < size; i++) keys[i] = state[record->state[1] + h * size + i];
    for (uint32_t t = 0; t < segment->count; t++) {
      uint64_t at = (uint64_t)(segment->start + t) * width + h * size;
      const float* query = floats(record->address[0]) + at;
      const float* key = floats(record->address[1]) + at;
      float* out = floats(record->address[3]) + at;
      add_outer(sums, key, floats(record->address[2]) + at, size);
      add_scaled(keys, key, 1, size);
      multiply_rows(query, sums, size, out);
      float share = 1 / dot_product(query, keys, size);
      for (uint32_t i = 0; i < size; i++) out[i] *= share;
    }
  }
}

// The gradient of linear_attention_forward. With g[t] = dout[t] / (query[t] . z[t]) and h[t] = -g[t] . out[t]:
//   dquery[t] = S[t] g[t] + h[t] z[t], walking forward;
//   dkey[t] = D[t] value[t] + e[t], dvalue[t] = key[t] . D[t], walking back with D[t] = D[t+1] + query[t] g[t]^T and
//   e[t] = e[t+1] + h[t] query[t]
//   address: query, key, value, out, dout [tokens, width]; then dquery, dkey, dvalue [tokens, width],
//     workspace [tokens, heads]
//   state and attribute as above
static void linear_attention_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  uint32_t width = record->width, heads = record->attribute[0].count, size = width / heads;
  struct range units = share_of(pass->segment_count * heads, 1, thread, pass->thread_count);
  for (uint32_t unit = units.begin; unit < units.end; unit++) {
    const struct segment* segment = &segments[unit / heads];
    uint32_t h = unit % heads;
    const float* state = floats(segment->state);
    float sums[widest_linear_head * widest_linear_head], keys[widest_linear_head], scaled[widest_linear_head];
    float later[widest_linear_head];
    float* shares = floats(record->address[8]) + segment->start * heads + h;
    for (uint32_t i = 0; i < size * size; i++) sums[i] = state[record->state[0] + h * size * size + i];
    for (uint32_t i = 0; i < size; i++) keys[i] = state[record->state[1] + h * size + i];
    for (uint32_t t = 0; t < segment->count; t++) {
      uint64_t at = (uint64_t)(segment->start + t) * width + h * size;
      const float* query = floats(record->address[0]) + at;
      const float* key = floats(record->address[1]) + at;
      const float* dout = floats(record->address[4]) + at;
      float* dquery = floats(record->address[5]) + at;
      add_outer(sums, key, floats(record->address[2]) + at, size);
      add_scaled(keys, key, 1, size);
      float share = shares[t * heads] = 1 / dot_product(query, keys, size);
      float dnormalizer = -share * dot_product(dout, floats(record->address[3]) + at, size);
      for (uint32_t i = 0; i < size; i++) dquery[i] = share * dot_product(sums + i * size, dout, size) + dnormalizer * keys[i];
    }
    // On the way back D takes the place of S.
    for (uint32_t i = 0; i < size * size; i++) sums[i] = 0;
    for (uint32_t i = 0; i < size; i++) later[i] = 0;
    for (uint32_t t = segment->count; t-- > 0;) {
      uint64_t at = (uint64_t)(segment->start + t) * width + h * size;
      const float* query = floats(record->address[0]) + at;
      const float* key = floats(record->address[1]) + at;
      const float* value = floats(record->address[2]) + at;
      const float* dout = floats(record->address[4]) + at;
      float share = shares[t * heads];
      float dnormalizer = -share * dot_product(dout, floats(record->address[3]) + at, size);
      for (uint32_t i = 0; i < size; i++) scaled[i] = share * dout[i];
      add_outer(sums, query, scaled, size);
      add_scaled(later, query, dnormalizer, size);
      float* dkey = floats(record->address[6]) + at;
      for (uint32_t i = 0; i < size; i++) dkey[i] = dot_product(sums + i * size, value, size) + later[i];
      multiply_rows(key, sums, size, floats(record->address[7]) + at);
    }
  }
}
