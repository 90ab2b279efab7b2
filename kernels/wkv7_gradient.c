// The gradient of the recurrence of RWKV-7.

#include "kernels.h"
#include "simd.h"

// A head's matrix is kept before every so many tokens and computed again between (Chen et al., arXiv 1604.06174).
enum { wkv7_chunk = 16 };

struct wkv7_gradients {
  float *receptance, *decay, *key, *value, *removal, *replacement;
};

// What one head has in one segment.
struct wkv7_sequence {
  const struct record* record;
  const struct segment* segment;
  uint32_t head;
  const float* initial;  // the matrix before the first token
  float* kept;           // matrices before token wkv7_chunk, 2 * wkv7_chunk, ..., `stride` floats apart
  uint64_t stride;
};

// The matrix before the first token of a chunk.
static inline const float* wkv7_before(const struct wkv7_sequence* sequence, uint32_t chunk) {
  return chunk == 0 ? sequence->initial : sequence->kept + (chunk - 1) * sequence->stride;
}

static inline uint64_t wkv7_place(const struct wkv7_sequence* sequence, uint32_t token, uint32_t size) {
  return (uint64_t)(sequence->segment->start + token) * sequence->record->width + (uint64_t)sequence->head * size;
}

// Rows `first` and those after it before each token of a chunk, and after the last; and what was removed from them.
static inline __attribute__((always_inline)) void wkv7_recompute(const struct wkv7_sequence* sequence, uint32_t token, uint32_t tokens,
                                                                 uint32_t first, uint32_t count, uint32_t size,
                                                                 vfloat s[][wkv7_rows], float removed[][wkv7_rows]) {
  const uint32_t vectors = (size + lanes - 1) / lanes;
  for (uint32_t t = 0; t < tokens; t++, s += vectors) {
    struct wkv7_inputs in = wkv7_inputs_at(sequence->record, wkv7_place(sequence, token + t, size));
    float value[wkv7_rows] = {0};
    for (uint32_t i = 0; i < count; i++) value[i] = in.value[first + i];
    wkv7_removed(s, in.removal, size, removed[t]);
    for (uint32_t c = 0, j = 0; c < size; c += lanes, j++) {
      uint32_t left = size - c;
      vfloat decay = load_up_to(in.decay + c, left), key = load_up_to(in.key + c, left);
      vfloat replacement = load_up_to(in.replacement + c, left);
      for (uint32_t i = 0; i < wkv7_rows; i++) {
        s[vectors + j][i] = wkv7_next(s[j][i], decay, value[i], key, removed[t][i], replacement);
      }
    }
  }
}

// Adds to the gradients of one token what `count` rows give, and takes the rows' own gradients g back to the token before.
//   S' = S diag(w) - u bᵀ + v kᵀ with u = S a; out = S' r. With g the gradient of S', its own and later tokens' share of out included:
//   dr = S'ᵀ dout, dv = g k, dk = gᵀ v, db = -gᵀ u, du = -g b, da = Sᵀ du, dw = the column sums of g ⊙ S; dS = g diag(w) + du aᵀ
static inline __attribute__((always_inline)) void wkv7_step_back(struct wkv7_inputs in, const float* dout, struct wkv7_gradients out,
                                                                 uint32_t first, uint32_t count, uint32_t size,
                                                                 const vfloat before[][wkv7_rows], const vfloat after[][wkv7_rows],
                                                                 const float removed[wkv7_rows], vfloat g[][wkv7_rows]) {
  float value[wkv7_rows] = {0}, given[wkv7_rows] = {0}, dvalue[wkv7_rows], dremoved[wkv7_rows];
  for (uint32_t i = 0; i < count; i++) value[i] = in.value[first + i], given[i] = dout[first + i];
  vfloat along_key[wkv7_rows] = {0}, along_replacement[wkv7_rows] = {0};
  for (uint32_t c = 0, j = 0; c < size; c += lanes, j++) {
    uint32_t left = size - c;
    vfloat receptance = load_up_to(in.receptance + c, left), key = load_up_to(in.key + c, left);
    vfloat replacement = load_up_to(in.replacement + c, left), dreceptance = {0};
    for (uint32_t i = 0; i < wkv7_rows; i++) {
      g[j][i] = multiply_add(splat(given[i]), receptance, g[j][i]);
      dreceptance = multiply_add(splat(given[i]), after[j][i], dreceptance);
      along_key[i] = multiply_add(g[j][i], key, along_key[i]);
      along_replacement[i] = multiply_add(g[j][i], replacement, along_replacement[i]);
    }
    store_up_to(out.receptance + c, load_up_to(out.receptance + c, left) + dreceptance, left);
  }
  sums_of_four(along_key, dvalue);
  sums_of_four(along_replacement, dremoved);
  for (uint32_t i = 0; i < count; i++) out.value[first + i] = dvalue[i];
  for (uint32_t c = 0, j = 0; c < size; c += lanes, j++) {
    uint32_t left = size - c;
    vfloat decay = load_up_to(in.decay + c, left), removal = load_up_to(in.removal + c, left);
    vfloat ddecay = {0}, dkey = {0}, dremoval = {0}, dreplacement = {0};
    for (uint32_t i = 0; i < wkv7_rows; i++) {
      dkey = multiply_add(splat(value[i]), g[j][i], dkey);
      dreplacement = multiply_add(splat(-removed[i]), g[j][i], dreplacement);
      dremoval = multiply_add(splat(-dremoved[i]), before[j][i], dremoval);
      ddecay = multiply_add(g[j][i], before[j][i], ddecay);
      g[j][i] = multiply_add(splat(-dremoved[i]), removal, g[j][i] * decay);
    }
    store_up_to(out.key + c, load_up_to(out.key + c, left) + dkey, left);
    store_up_to(out.replacement + c, load_up_to(out.replacement + c, left) + dreplacement, left);
    store_up_to(out.removal + c, load_up_to(out.removal + c, left) + dremoval, left);
    store_up_to(out.decay + c, load_up_to(out.decay + c, left) + ddecay, left);
  }
}

// Some rows of a head's matrix over all of a segment: forward, keeping them before each chunk, then back chunk by chunk.
static inline __attribute__((always_inline)) void wkv7_rows_back(const struct wkv7_sequence* sequence, float* dstate, uint32_t first,
                                                                 uint32_t size, vfloat s[][wkv7_rows], vfloat g[][wkv7_rows]) {
  const struct record* record = sequence->record;
  const uint32_t count = size - first < wkv7_rows ? size - first : wkv7_rows, tokens = sequence->segment->count;
  const uint32_t vectors = (size + lanes - 1) / lanes, last = (tokens - 1) / wkv7_chunk;
  const uint64_t place = (uint64_t)first * size;
  float removed[wkv7_chunk][wkv7_rows];
  wkv7_load(s, sequence->initial + place, count, size);
  for (uint32_t chunk = 0; chunk < last; chunk++) {
    wkv7_recompute(sequence, chunk * wkv7_chunk, wkv7_chunk, first, count, size, s, removed);
    for (uint32_t j = 0; j < vectors; j++) {
      for (uint32_t i = 0; i < wkv7_rows; i++) s[j][i] = s[wkv7_chunk * vectors + j][i];
    }
    wkv7_store(s, sequence->kept + chunk * sequence->stride + place, count, size);
  }
  for (uint32_t j = 0; j < vectors; j++) {
    for (uint32_t i = 0; i < wkv7_rows; i++) g[j][i] = splat(0);
  }
  for (uint32_t chunk = last + 1; chunk-- > 0;) {
    const uint32_t token = chunk * wkv7_chunk, length = tokens - token < wkv7_chunk ? tokens - token : wkv7_chunk;
    wkv7_load(s, wkv7_before(sequence, chunk) + place, count, size);
    wkv7_recompute(sequence, token, length, first, count, size, s, removed);
    for (uint32_t t = length; t-- > 0;) {
      uint64_t at = wkv7_place(sequence, token + t, size);
      const uint64_t* outputs = record->address + 7;
      struct wkv7_gradients out = {floats(outputs[0]) + at, floats(outputs[1]) + at, floats(outputs[2]) + at,
                                   floats(outputs[3]) + at, floats(outputs[4]) + at, floats(outputs[5]) + at};
      wkv7_step_back(wkv7_inputs_at(record, at), floats(record->address[6]) + at, out, first, count, size, s + t * vectors,
                     s + (t + 1) * vectors, removed[t], g);
    }
  }
  if (!dstate) return;
  for (uint32_t c = 0, j = 0; c < size; c += lanes, j++) {
    for (uint32_t i = 0; i < count; i++) {
      float* to = dstate + place + (uint64_t)i * size + c;
      store_up_to(to, load_up_to(to, size - c) + g[j][i], size - c);
    }
  }
}

// One head over one segment; its rows add to the same gradients, one after another.
static void wkv7_head_back(const struct wkv7_sequence* sequence, float* dstate, uint32_t size) {
  const uint64_t* outputs = sequence->record->address + 7;
  for (uint32_t t = 0; t < sequence->segment->count; t++) {
    for (uint32_t n = 0; n < 6; n++) {
      __builtin_memset(floats(outputs[n]) + wkv7_place(sequence, t, size), 0, size * sizeof(float));
    }
  }
  vfloat s[(wkv7_chunk + 1) * wkv7_most_vectors][wkv7_rows], g[wkv7_most_vectors][wkv7_rows];
  for (uint32_t first = 0; first < size; first += wkv7_rows) {
    if (size == wkv7_usual_channels) wkv7_rows_back(sequence, dstate, first, wkv7_usual_channels, s, g);
    else wkv7_rows_back(sequence, dstate, first, size, s, g);
  }
}

// The gradients of wkv7_forward.
//   address: receptance, decay, key, value, removal, replacement, dout [tokens, width]; then the gradients of the first six in their
//     order, kept [tokens, width * size / wkv7_chunk] with size = width / heads: room for matrices; and that of the matrix that
//     sequences begin with [width * size], summed over them, or 0 where it is not wanted
//   attribute: heads; state: matrix
// A sequence of n tokens keeps (n - 1) / wkv7_chunk matrices, which its rows of `kept` have room for.
static void wkv7_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  const uint32_t heads = record->attribute[0].count, size = record->width / heads;
  const uint64_t stride = (uint64_t)record->width * size, kept_width = (stride + wkv7_chunk - 1) / wkv7_chunk;
  float* dstate = floats(record->address[14]);
  // Sequences add to one gradient of the first matrix; where it is wanted, one thread has all of a head.
  const uint32_t together = dstate ? pass->segment_count : 1;
  struct range units = share_of(pass->segment_count / together * heads, 1, thread, pass->thread_count);
  for (uint32_t n = units.begin; n < units.end; n++) {
    const uint32_t head = n % heads;
    const uint64_t matrix = (uint64_t)head * size * size;
    if (dstate) __builtin_memset(dstate + matrix, 0, (uint64_t)size * size * sizeof(float));
    for (uint32_t s = n / heads * together; s < (n / heads + 1) * together; s++) {
      const struct segment* segment = &segments[s];
      if (segment->count == 0) continue;
      struct wkv7_sequence sequence = {
          .record = record,
          .segment = segment,
          .head = head,
          .initial = floats(segment->state) + record->state[0] + matrix,
          .kept = floats(record->address[13]) + segment->start * kept_width + matrix,
          .stride = stride,
      };
      wkv7_head_back(&sequence, dstate ? dstate + matrix : 0, size);
    }
  }
}
