// The recurrence of RWKV-7 (arXiv 2503.14456, section 3, "weighted key value"): each head has a matrix of values by keys, which decays,
// forgets what it holds along one direction, and learns one outer product a token. It walks along time; the rows of a head's matrix,
// heads and sequences are independent. A few rows at a time stay in registers or the first cache for all of a sequence's tokens,
// so a long sequence costs no more memory traffic than one token, and pieces of any length give the same bits.

#include "kernels.h"
#include "simd.h"

// Rows walked together, and the widest head (src/graph/operations/wkv7.ts knows the same limit).
enum { wkv7_rows = 4, wkv7_most_channels = 256, wkv7_usual_channels = 64 };
enum { wkv7_most_vectors = wkv7_most_channels / lanes };

// The rows of one token that the recurrence reads, from the first channel of a head.
struct wkv7_inputs {
  const float *receptance, *decay, *key, *value, *removal, *replacement;
};

static inline struct wkv7_inputs wkv7_inputs_at(const struct record* record, uint64_t at) {
  const uint64_t* address = record->address;
  return (struct wkv7_inputs){floats(address[0]) + at, floats(address[1]) + at, floats(address[2]) + at,
                              floats(address[3]) + at, floats(address[4]) + at, floats(address[5]) + at};
}

// `count` rows of a head's matrix; the others are 0.
static inline __attribute__((always_inline)) void wkv7_load(vfloat s[][wkv7_rows], const float* from, uint32_t count, uint32_t size) {
  for (uint32_t c = 0, j = 0; c < size; c += lanes, j++) {
    for (uint32_t i = 0; i < wkv7_rows; i++) s[j][i] = i < count ? load_up_to(from + (uint64_t)i * size + c, size - c) : splat(0);
  }
}

static inline __attribute__((always_inline)) void wkv7_store(vfloat s[][wkv7_rows], float* to, uint32_t count, uint32_t size) {
  for (uint32_t c = 0, j = 0; c < size; c += lanes, j++) {
    for (uint32_t i = 0; i < count; i++) store_up_to(to + (uint64_t)i * size + c, s[j][i], size - c);
  }
}

// removed[i] = the product of row i and the removal key.
static inline __attribute__((always_inline)) void wkv7_removed(vfloat s[][wkv7_rows], const float* removal, uint32_t size,
                                                               float removed[wkv7_rows]) {
  vfloat sums[wkv7_rows] = {0};
  for (uint32_t c = 0, j = 0; c < size; c += lanes, j++) {
    vfloat direction = load_up_to(removal + c, size - c);
    for (uint32_t i = 0; i < wkv7_rows; i++) sums[i] = multiply_add(s[j][i], direction, sums[i]);
  }
  sums_of_four(sums, removed);
}

// The element of a row after a token.
static inline vfloat wkv7_next(vfloat s, vfloat decay, float value, vfloat key, float removed, vfloat replacement) {
  return multiply_add(splat(-removed), replacement, multiply_add(splat(value), key, s * decay));
}

// Rows `first` and those after it of one head, over all tokens of a segment.
static inline __attribute__((always_inline)) void wkv7_walk(const struct record* record, const struct segment* segment, uint32_t head,
                                                            uint32_t first, uint32_t size) {
  uint32_t count = size - first < wkv7_rows ? size - first : wkv7_rows;
  uint64_t matrix = record->state[0] + ((uint64_t)head * size + first) * size;
  vfloat s[wkv7_most_vectors][wkv7_rows];
  wkv7_load(s, floats(segment->state) + matrix, count, size);
  for (uint32_t t = segment->start; t < segment->start + segment->count; t++) {
    uint64_t at = (uint64_t)t * record->width + (uint64_t)head * size;
    struct wkv7_inputs in = wkv7_inputs_at(record, at);
    float removed[wkv7_rows], value[wkv7_rows] = {0}, out[wkv7_rows];
    wkv7_removed(s, in.removal, size, removed);
    for (uint32_t i = 0; i < count; i++) value[i] = in.value[first + i];
    vfloat sums[wkv7_rows] = {0};
    for (uint32_t c = 0, j = 0; c < size; c += lanes, j++) {
      uint32_t left = size - c;
      vfloat decay = load_up_to(in.decay + c, left), key = load_up_to(in.key + c, left);
      vfloat replacement = load_up_to(in.replacement + c, left), receptance = load_up_to(in.receptance + c, left);
      for (uint32_t i = 0; i < wkv7_rows; i++) {
        s[j][i] = wkv7_next(s[j][i], decay, value[i], key, removed[i], replacement);
        sums[i] = multiply_add(s[j][i], receptance, sums[i]);
      }
    }
    sums_of_four(sums, out);
    for (uint32_t i = 0; i < count; i++) floats(record->address[6])[at + first + i] = out[i];
  }
  wkv7_store(s, floats(segment->next_state) + matrix, count, size);
}

// One head over one segment. Heads of the usual size have loops of known length.
static void wkv7_head(const struct record* record, const struct segment* segment, uint32_t head, uint32_t size) {
  for (uint32_t first = 0; first < size; first += wkv7_rows) {
    if (size == wkv7_usual_channels) wkv7_walk(record, segment, head, first, wkv7_usual_channels);
    else wkv7_walk(record, segment, head, first, size);
  }
}

// S = S diag(decay) - (S removal) replacementᵀ + value keyᵀ; out = S receptance, for each head
//   address: receptance, decay, key, value, removal, replacement, out [tokens, width]; attribute: heads
//   state: matrix [heads, width / heads, width / heads], rows of values
// Between barriers on both sides threads share sequences, too; else the heads are those of each thread.
static void wkv7_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  uint32_t heads = record->attribute[0].count, size = record->width / heads;
  if (record->barrier_before == BARRIER_ALWAYS && record->barrier_after == BARRIER_ALWAYS) {
    struct range units = share_of(pass->segment_count * heads, 1, thread, pass->thread_count);
    for (uint32_t n = units.begin; n < units.end; n++) wkv7_head(record, &segments[n / heads], n % heads, size);
  } else {
    struct range own = heads_of(heads, size, thread, pass->thread_count);
    for (uint32_t s = 0; s < pass->segment_count; s++) {
      for (uint32_t head = own.begin; head < own.end; head++) wkv7_head(record, &segments[s], head, size);
    }
  }
}
