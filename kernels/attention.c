// Causal softmax attention (Vaswani et al., arXiv 1706.03762, section 3.2), with the keys and values of earlier tokens in the state.
// The softmax is taken block by block of keys, its sums relative to the largest score so far (Milakov and Gimelshein,
// arXiv 1805.02867), so that no row of scores is stored. Threads share the heads of all segments.

#include "kernels.h"
#include "simd.h"

enum { key_block = 64, widest_head = 256 };

static inline float dot_product(const float* a, const float* b, uint32_t count) {
  vfloat total = {0};
  uint32_t whole = count - count % lanes;
  for (uint32_t i = 0; i < whole; i += lanes) total += load(a + i) * load(b + i);
  float result = sum(total);
  for (uint32_t i = whole; i < count; i++) result += a[i] * b[i];
  return result;
}

// to += factor * from
static inline void add_scaled(float* to, const float* from, float factor, uint32_t count) {
  for (uint32_t i = 0; i < count; i += lanes) {
    uint32_t left = count - i;
    store_up_to(to + i, load_up_to(to + i, left) + load_up_to(from + i, left) * factor, left);
  }
}

// Where one head of one segment finds its keys and values: those of earlier tokens in the state, those of these tokens in rows.
struct head {
  const float *cached_keys, *cached_values, *keys, *values;
  uint32_t cached, width, size, number;
  uint64_t first;  // float of its first row in queries and results
};

static struct head head_at(const struct pass* pass, const struct record* record, uint32_t unit) {
  const struct segment* segment = (const struct segment*)(uintptr_t)pass->segments + unit / record->count;
  uint32_t width = record->width, size = width / record->count, h = unit % record->count;
  const float* state = floats(segment->state);
  uint64_t first = (uint64_t)segment->start * width + h * size;
  return (struct head){
      .cached_keys = state + record->state[1] + h * size,
      .cached_values = state + record->state[2] + h * size,
      .keys = floats(record->address[1]) + first,
      .values = floats(record->address[2]) + first,
      .cached = (uint32_t)state[record->state[0] + h],
      .width = width,
      .size = size,
      .number = h,
      .first = first,
  };
}

static inline const float* key_of(const struct head* head, uint32_t index) {
  return index < head->cached ? head->cached_keys + (uint64_t)index * head->width
                              : head->keys + (uint64_t)(index - head->cached) * head->width;
}

static inline const float* value_of(const struct head* head, uint32_t index) {
  return index < head->cached ? head->cached_values + (uint64_t)index * head->width
                              : head->values + (uint64_t)(index - head->cached) * head->width;
}

// out = softmax(scale * query . keys) . values, over the first `count` keys; the logarithm of the softmax's sum.
static void attend(const struct head* head, const float* query, uint32_t count, float scale, float* out, float* most,
                   float* total) {
  float scores[key_block], mixed[widest_head];
  float largest = -3.4e38f, weights = 0;
  for (uint32_t i = 0; i < head->size; i++) mixed[i] = 0;
  for (uint32_t block = 0; block < count; block += key_block) {
    uint32_t keys = count - block < key_block ? count - block : key_block;
    float before = largest;
    for (uint32_t j = 0; j < keys; j++) {
      scores[j] = scale * dot_product(query, key_of(head, block + j), head->size);
      if (scores[j] > largest) largest = scores[j];
    }
    float kept = exp_v(splat(before - largest))[0];
    weights *= kept;
    for (uint32_t i = 0; i < head->size; i++) mixed[i] *= kept;
    for (uint32_t j = 0; j < keys; j += lanes) store_up_to(scores + j, exp_v(load_up_to(scores + j, keys - j) - largest), keys - j);
    for (uint32_t j = 0; j < keys; j++) {
      weights += scores[j];
      add_scaled(mixed, value_of(head, block + j), scores[j], head->size);
    }
  }
  if (out) {
    for (uint32_t i = 0; i < head->size; i++) out[i] = mixed[i] / weights;
  }
  *most = largest;
  *total = weights;
}

// out[t] = attention of query[t] over all tokens up to t.
//   address: query, key, value [tokens, width], out [tokens, width]
//   state: count [heads], keys, values [capacity * width]; count: heads, inputs: capacity
static void attention_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  uint32_t width = record->width, heads = record->count, size = width / heads;
  float scale = 1 / __builtin_sqrtf((float)size);
  struct range units = share_of(pass->segment_count * heads, 1, thread, pass->thread_count);
  for (uint32_t unit = units.begin; unit < units.end; unit++) {
    const struct segment* segment = &segments[unit / heads];
    struct head head = head_at(pass, record, unit);
    uint32_t h = head.number, cached = head.cached;
    uint64_t first = head.first;
    const float* state = floats(segment->state);
    float* next = floats(segment->next_state);
    for (uint32_t t = 0; t < segment->count; t++) {
      uint64_t at = first + (uint64_t)t * width;
      float most, total;
      attend(&head, floats(record->address[0]) + at, cached + t + 1, scale, floats(record->address[3]) + at, &most, &total);
    }
    // What does not fit is forgotten; whoever runs passes keeps to the capacity.
    uint32_t end = cached + segment->count < record->inputs ? cached + segment->count : record->inputs;
    for (uint32_t i = next == state ? cached : 0; i < end; i++) {
      for (uint32_t c = 0; c < size; c++) {
        next[record->state[1] + (uint64_t)i * width + h * size + c] = key_of(&head, i)[c];
        next[record->state[2] + (uint64_t)i * width + h * size + c] = value_of(&head, i)[c];
      }
    }
    next[record->state[0] + h] = (float)end;
  }
}

// The gradient of attention_forward for the query, key and value of these tokens; those in the state are taken as they are. With p
// the softmax and s the scores: ds = p (dout . value - dout . out), dquery = scale ds keys, dkey = scale ds query,
// dvalue = p dout.
//   address: query, key, value, out, dout [tokens, width]; then dquery, dkey, dvalue [tokens, width]
//   state, count and inputs as above
static void attention_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  uint32_t width = record->width, heads = record->count, size = width / heads;
  float scale = 1 / __builtin_sqrtf((float)size);
  struct range units = share_of(pass->segment_count * heads, 1, thread, pass->thread_count);
  for (uint32_t unit = units.begin; unit < units.end; unit++) {
    const struct segment* segment = &segments[unit / heads];
    struct head head = head_at(pass, record, unit);
    uint32_t cached = head.cached;
    uint64_t first = head.first;
    float* dquery = floats(record->address[5]) + first;
    float* dkey = floats(record->address[6]) + first;
    float* dvalue = floats(record->address[7]) + first;
    for (uint32_t t = 0; t < segment->count; t++) {
      for (uint32_t c = 0; c < size; c++) dquery[(uint64_t)t * width + c] = dkey[(uint64_t)t * width + c] = dvalue[(uint64_t)t * width + c] = 0;
    }
    for (uint32_t t = 0; t < segment->count; t++) {
      uint64_t at = (uint64_t)t * width;
      const float* query = floats(record->address[0]) + first + at;
      const float* dout = floats(record->address[4]) + first + at;
      float most, total;
      attend(&head, query, cached + t + 1, scale, 0, &most, &total);
      float through = dot_product(dout, floats(record->address[3]) + first + at, size);
      for (uint32_t block = 0; block <= cached + t; block += lanes) {
        uint32_t keys = cached + t + 1 - block < lanes ? cached + t + 1 - block : lanes;
        float scores[lanes] = {0};
        for (uint32_t j = 0; j < keys; j++) scores[j] = scale * dot_product(query, key_of(&head, block + j), size);
        store(scores, exp_v(load(scores) - most) / total);
        for (uint32_t j = 0; j < keys; j++) {
          uint32_t s = block + j;
          float ds = scale * scores[j] * (dot_product(dout, value_of(&head, s), size) - through);
          add_scaled(dquery + at, key_of(&head, s), ds, size);
          if (s < cached) continue;
          add_scaled(dkey + (uint64_t)(s - cached) * width, query, ds, size);
          add_scaled(dvalue + (uint64_t)(s - cached) * width, dout, scores[j], size);
        }
      }
    }
  }
}
