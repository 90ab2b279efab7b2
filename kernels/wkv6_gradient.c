// The gradient of the recurrence of RWKV-5 and 6 (wkv6.c). It walks back along time and needs the state
// before each token, which cannot be found from the state after it where decays are near 0. So a first walk
// keeps the state after every so many tokens, and the walk back computes those in between anew.

#include "kernels.h"
#include "simd.h"

enum {
  wkv6_kept_tokens = 16,   // between states that are kept; src/graph/operations/wkv6.ts has it, too
  wkv6_kept_columns = 4,   // columns of a head's matrix that are walked together: their states stay in the cache
  widest_wkv6_head = 256,  // channels of a head; checked by wkv6.ts
};

// Columns of states, each of `size` floats and then zeros up to a whole vector: vectors of keys.
typedef float wkv6_part[wkv6_kept_columns][widest_wkv6_head];

// The gradients of a head's rows in one sequence, each 0 where it is not wanted.
struct wkv6_gradients {
  float *decay, *receptance, *key, *value, *bonus;
};

// next = diag(decay) before + key value^T
static inline void wkv6_advance(const struct wkv6_head* head, uint32_t t, uint32_t j, uint32_t columns, const wkv6_part before,
                                wkv6_part next) {
  const float *k = head->key + t * head->step, *w = head->decay + t * head->decay_step, *v = head->value + t * head->step + j;
  for (uint32_t i = 0; i < head->size; i += lanes) {
    uint32_t left = head->size - i;
    vfloat key = load_up_to(k + i, left), decay = load_up_to(w + i, left);
    for (uint32_t c = 0; c < columns; c++) store(next[c] + i, multiply_add(decay, load(before[c] + i), key * v[c]));
  }
}

static inline void add_part(float* to, vfloat amount, uint32_t left) {
  if (to) store_up_to(to, load_up_to(to, left) + amount, left);
}

// What token t gives through a few columns; `later` is the gradient of the state after it, and then of that before it.
static void wkv6_step_back(const struct wkv6_head* head, const struct wkv6_gradients* to, const float* dout, uint32_t t, uint32_t j,
                           uint32_t columns, const wkv6_part before, wkv6_part later) {
  uint64_t at = t * head->step;
  const float *r = head->receptance + at, *k = head->key + at, *w = head->decay + t * head->decay_step, *v = head->value + at + j;
  const float* gradient = dout + at + j;
  vfloat through_key[wkv6_kept_columns] = {0};
  for (uint32_t i = 0; i < head->size; i += lanes) {
    uint32_t left = head->size - i;
    vfloat receptance = load_up_to(r + i, left), key = load_up_to(k + i, left), decay = load_up_to(w + i, left);
    vfloat dreceptance = {0}, dkey = {0}, ddecay = {0};
    for (uint32_t c = 0; c < columns; c++) {
      vfloat state = load(before[c] + i), dstate = load(later[c] + i);
      dreceptance += state * gradient[c];
      ddecay += state * dstate;
      dkey += dstate * v[c];
      through_key[c] += dstate * key;
      store(later[c] + i, multiply_add(decay, dstate, receptance * gradient[c]));
    }
    add_part(to->receptance ? to->receptance + at + i : 0, dreceptance, left);
    add_part(to->key ? to->key + at + i : 0, dkey, left);
    add_part(to->decay ? to->decay + at + i : 0, ddecay, left);
  }
  if (!to->value) return;
  float own = wkv6_own_weight(r, k, head->bonus, head->size);
  for (uint32_t c = 0; c < columns; c++) to->value[at + j + c] = sum(through_key[c]) + own * gradient[c];
}

// What each token gives through its own value: the first part of each sum.
static void wkv6_own_gradients(const struct wkv6_head* head, const struct wkv6_gradients* to, const float* dout) {
  for (uint32_t t = 0; t < head->count; t++) {
    uint64_t at = t * head->step;
    vfloat products = {0};
    for (uint32_t j = 0; j < head->size; j += lanes) {
      products += load_up_to(head->value + at + j, head->size - j) * load_up_to(dout + at + j, head->size - j);
    }
    float along = sum(products);
    for (uint32_t i = 0; i < head->size; i += lanes) {
      uint32_t left = head->size - i;
      vfloat r = load_up_to(head->receptance + at + i, left), k = load_up_to(head->key + at + i, left);
      vfloat u = load_up_to(head->bonus + i, left);
      if (to->receptance) store_up_to(to->receptance + at + i, u * k * along, left);
      if (to->key) store_up_to(to->key + at + i, r * u * along, left);
      if (to->bonus) store_up_to(to->bonus + at + i, r * k * along, left);
      if (to->decay) store_up_to(to->decay + at + i, splat(0), left);
    }
  }
}

// One head of one sequence.
//   kept: room for states, each [size, size], after every kept_tokens tokens but the last, `kept_step` floats apart
//   dmatrix: the gradient of the state before the sequence, to which this is added, or 0
static void wkv6_walk_back(const struct wkv6_head* head, const struct wkv6_gradients* to, const float* dout, const float* matrix,
                           float* kept, uint64_t kept_step, float* dmatrix) {
  const uint32_t size = head->size;
  wkv6_part states[wkv6_kept_tokens] = {0}, later;
  wkv6_own_gradients(head, to, dout);
  for (uint32_t j = 0; j < size; j += wkv6_kept_columns) {
    uint32_t columns = size - j < wkv6_kept_columns ? size - j : wkv6_kept_columns;
    for (uint32_t c = 0; c < columns; c++) {
      for (uint32_t i = 0; i < size; i++) states[0][c][i] = matrix[i * size + j + c];
    }
    uint32_t pieces = (head->count + wkv6_kept_tokens - 1) / wkv6_kept_tokens;
    for (uint32_t piece = 1; piece < pieces; piece++) {
      for (uint32_t t = (piece - 1) * wkv6_kept_tokens; t < piece * wkv6_kept_tokens; t++) {
        wkv6_advance(head, t, j, columns, states[0], states[0]);
      }
      float* to_keep = kept + (piece - 1) * kept_step + j * size;
      for (uint32_t c = 0; c < columns; c++) __builtin_memcpy(to_keep + c * size, states[0][c], size * sizeof(float));
    }
    __builtin_memset(later, 0, sizeof later);
    for (uint32_t piece = pieces; piece-- > 0;) {
      uint32_t begin = piece * wkv6_kept_tokens, end = begin + wkv6_kept_tokens < head->count ? begin + wkv6_kept_tokens : head->count;
      for (uint32_t c = 0; c < columns; c++) {
        if (piece > 0) __builtin_memcpy(states[0][c], kept + (piece - 1) * kept_step + (j + c) * size, size * sizeof(float));
        else for (uint32_t i = 0; i < size; i++) states[0][c][i] = matrix[i * size + j + c];
      }
      for (uint32_t t = begin; t + 1 < end; t++) wkv6_advance(head, t, j, columns, states[t - begin], states[t - begin + 1]);
      for (uint32_t t = end; t-- > begin;) wkv6_step_back(head, to, dout, t, j, columns, states[t - begin], later);
    }
    if (!dmatrix) continue;
    for (uint32_t c = 0; c < columns; c++) {
      for (uint32_t i = 0; i < size; i++) dmatrix[i * size + j + c] += later[c][i];
    }
  }
}

// The gradient of wkv6_forward.
//   address: decay [tokens or 1, width], receptance, key, value [tokens, width], bonus [1, width], dout
//     [tokens, width]; then ddecay, dreceptance, dkey, dvalue, dbonus [tokens, width], dS [heads, size, size],
//     each 0 where it is not wanted; then room for states that are kept [tokens, width * size / kept_tokens]
//   state: S [heads, size, size]; attribute: heads
// The gradient of S is a sum over sequences; where it is wanted a head's sequences are one thread's.
static void wkv6_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  uint32_t width = record->width, heads = record->attribute[0].count, size = width / heads;
  uint64_t floats_of_all = (uint64_t)width * size;
  uint64_t row = (floats_of_all + wkv6_kept_tokens - 1) / wkv6_kept_tokens;
  float* dmatrix = floats(record->address[11]);
  uint32_t sequences = dmatrix ? 1 : pass->segment_count;
  struct range units = share_of(sequences * heads, 1, thread, pass->thread_count);
  for (uint32_t unit = units.begin; unit < units.end; unit++) {
    uint32_t h = unit % heads, first = dmatrix ? 0 : unit / heads, end = dmatrix ? pass->segment_count : first + 1;
    uint64_t at_head = (uint64_t)h * size * size;
    if (dmatrix) __builtin_memset(dmatrix + at_head, 0, size * size * sizeof(float));
    for (uint32_t s = first; s < end; s++) {
      struct wkv6_head head = wkv6_head_at(record, &segments[s], h, size);
      uint64_t at = (uint64_t)segments[s].start * width + h * size;
      float* outputs[5];
      for (int i = 0; i < 5; i++) outputs[i] = record->address[6 + i] ? floats(record->address[6 + i]) + at : 0;
      struct wkv6_gradients to = {outputs[0], outputs[1], outputs[2], outputs[3], outputs[4]};
      const float* matrix = floats(segments[s].state) + record->state[0] + at_head;
      float* kept = floats(record->address[12]) + segments[s].start * row + at_head;
      wkv6_walk_back(&head, &to, floats(record->address[5]) + at, matrix, kept, floats_of_all, dmatrix ? dmatrix + at_head : 0);
    }
  }
}
