// The recurrence of RWKV-5 and 6 with a matrix for each head as its state (arXiv 2404.05892, section 4). It
// walks along time; sequences, heads, and the columns of a head's matrix are independent. Threads share the
// heads, a head's matrix stays in the first cache, and the sums of a few columns in registers. Every element
// goes through the same arithmetic whatever pieces a sequence comes in.

#include "kernels.h"
#include "simd.h"

enum { wkv6_vectors = 4 };  // of columns at a time

// Rows of one head in one sequence. Decays are one row where `decay_step` is 0.
struct wkv6_head {
  const float *decay, *receptance, *key, *value, *bonus;
  uint64_t decay_step, step;
  uint32_t size, count;
};

static struct wkv6_head wkv6_head_at(const struct record* record, const struct segment* segment, uint32_t h, uint32_t size) {
  uint64_t width = record->inputs, at = segment->start * width + h * size;
  int one_row = record->input_row_set == ROWS_FIXED;
  return (struct wkv6_head){
      .decay = floats(record->address[0]) + (one_row ? h * size : at),
      .receptance = floats(record->address[1]) + at,
      .key = floats(record->address[2]) + at,
      .value = floats(record->address[3]) + at,
      .bonus = floats(record->address[4]) + h * size,
      .decay_step = one_row ? 0 : width,
      .step = width,
      .size = size,
      .count = segment->count,
  };
}

// The sum over keys of r u k: the weight of the token's own value.
static inline float wkv6_own_weight(const float* r, const float* k, const float* u, uint32_t size) {
  vfloat total = {0};
  for (uint32_t i = 0; i < size; i += lanes) {
    uint32_t left = size - i;
    total += load_up_to(r + i, left) * load_up_to(u + i, left) * load_up_to(k + i, left);
  }
  return sum(total);
}

// Up to `vectors` vectors of columns from `j` on, through all tokens.
static inline __attribute__((always_inline)) void wkv6_columns(const struct wkv6_head* head, uint32_t j, int vectors, uint32_t left,
                                                               float* matrix, float* out) {
  const uint32_t size = head->size;
  for (uint32_t t = 0; t < head->count; t++) {
    const float* r = head->receptance + t * head->step;
    const float* k = head->key + t * head->step;
    const float* w = head->decay + t * head->decay_step;
    float own = wkv6_own_weight(r, k, head->bonus, size);
    vfloat value[wkv6_vectors], sums[wkv6_vectors];
    for (int v = 0; v < vectors; v++) {
      value[v] = load_up_to(head->value + t * head->step + j + v * lanes, left);
      sums[v] = value[v] * own;
    }
    float* row = matrix + j;
    for (uint32_t i = 0; i < size; i++, row += size) {
      vfloat receptance = splat(r[i]), key = splat(k[i]), decay = splat(w[i]);
      for (int v = 0; v < vectors; v++) {
        vfloat before = load_up_to(row + v * lanes, left);
        sums[v] = multiply_add(receptance, before, sums[v]);
        store_up_to(row + v * lanes, multiply_add(decay, before, key * value[v]), left);
      }
    }
    for (int v = 0; v < vectors; v++) store_up_to(out + t * head->step + j + v * lanes, sums[v], left);
  }
}

static void wkv6_walk(const struct record* record, const struct segment* segment, uint32_t h, uint32_t size) {
  struct wkv6_head head = wkv6_head_at(record, segment, h, size);
  uint64_t at = record->state[0] + (uint64_t)h * size * size;
  const float* from = floats(segment->state) + at;
  float* matrix = floats(segment->next_state) + at;
  float* out = floats(record->address[5]) + (uint64_t)segment->start * record->width + h * size;
  if (matrix != from) __builtin_memcpy(matrix, from, size * size * sizeof *matrix);
  uint32_t j = 0;
  for (; j + wkv6_vectors * lanes <= size; j += wkv6_vectors * lanes) wkv6_columns(&head, j, wkv6_vectors, lanes, matrix, out);
  for (; j < size; j += lanes) wkv6_columns(&head, j, 1, size - j, matrix, out);
}

// For each head, with S its state, whose rows are keys: out[t] = r[t] (S + (u k[t]) v[t]^T), then S = diag(w[t]) S + k[t] v[t]^T.
//   address: decay [tokens or 1, width], receptance, key, value [tokens, width], bonus [width], out [tokens, width]
//   state: S [heads, size, size]; attribute: heads
// Between barriers on both sides threads share the heads of all sequences; else those of each, as heads_of has it.
static void wkv6_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  uint32_t heads = record->attribute[0].count, size = record->width / heads;
  if (record->barrier_before == BARRIER_ALWAYS && record->barrier_after == BARRIER_ALWAYS) {
    struct range units = share_of(pass->segment_count * heads, 1, thread, pass->thread_count);
    for (uint32_t i = units.begin; i < units.end; i++) wkv6_walk(record, &segments[i / heads], i % heads, size);
    return;
  }
  struct range own = heads_of(heads, size, thread, pass->thread_count);
  for (uint32_t s = 0; s < pass->segment_count; s++) {
    for (uint32_t h = own.begin; h < own.end; h++) wkv6_walk(record, &segments[s], h, size);
  }
}
