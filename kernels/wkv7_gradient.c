// The gradient of the recurrence of RWKV-7. A head's matrix is kept before every so many tokens and computed
// again between (Chen et al., arXiv 1604.06174): stepping back from a later one would divide by decays, and
// magnify rounding up to ten thousand times.

#include "kernels.h"
#include "simd.h"

enum { wkv7_most_states = (wkv7_chunk + 1) * wkv7_most_vectors };

// Rows of a head's matrix before each gathered token, and after the last, from the first; and what was removed from them.
static inline __attribute__((always_inline)) void wkv7_recompute(const float* token, uint32_t tokens, const float* value, uint32_t width,
                                                                 uint32_t count, uint32_t size, vfloat s[][wkv7_rows],
                                                                 float removed[][wkv7_rows]) {
  const uint32_t padded = wkv7_padded(size), vectors = padded / lanes;
  for (uint32_t t = 0; t < tokens; t++, s += vectors, token += wkv7_gathered * padded, value += width) {
    vfloat lost[wkv7_rows], learned[wkv7_rows];
    wkv7_removed(s, token, padded, removed[t]);
    for (uint32_t i = 0; i < wkv7_rows; i++) lost[i] = splat(-removed[t][i]), learned[i] = splat(i < count ? value[i] : 0);
    for (uint32_t c = 0, j = 0; c < padded; c += lanes, j++) {
      vfloat decay = load(token + WKV7_DECAY * padded + c), key = load(token + WKV7_KEY * padded + c);
      vfloat replacement = load(token + WKV7_REPLACEMENT * padded + c);
      for (uint32_t i = 0; i < wkv7_rows; i++) {
        s[vectors + j][i] = wkv7_next(s[j][i], decay, learned[i], key, lost[i], replacement);
      }
    }
  }
}

static inline void wkv7_add(float* to, vfloat more) { store(to, load(to) + more); }

// Adds to the gradients of one token what some rows give, and takes the rows' own gradients g back to the token before.
//   S' = S diag(w) - u bᵀ + v kᵀ with u = S a; out = S' r. With g the gradient of S', its own and later
//     tokens' share of out included:
//   dr = S'ᵀ dout, dv = g k, dk = gᵀ v, db = -gᵀ u, du = -g b, da = Sᵀ du, dw = the column sums of g ⊙ S; dS = g diag(w) + du aᵀ
static inline __attribute__((always_inline)) void wkv7_step_back(const float* token, const float* value, const float* dout,
                                                                 float* gradients, float* dvalue, uint32_t count, uint32_t padded,
                                                                 vfloat before[][wkv7_rows], vfloat after[][wkv7_rows],
                                                                 const float removed[wkv7_rows], vfloat g[][wkv7_rows]) {
  vfloat given[wkv7_rows], along_key[wkv7_rows] = {0}, along_replacement[wkv7_rows] = {0};
  for (uint32_t i = 0; i < wkv7_rows; i++) given[i] = splat(i < count ? dout[i] : 0);
  for (uint32_t c = 0, j = 0; c < padded; c += lanes, j++) {
    vfloat receptance = load(token + WKV7_RECEPTANCE * padded + c), key = load(token + WKV7_KEY * padded + c);
    vfloat replacement = load(token + WKV7_REPLACEMENT * padded + c), dreceptance = {0};
    for (uint32_t i = 0; i < wkv7_rows; i++) {
      g[j][i] = multiply_add(given[i], receptance, g[j][i]);
      dreceptance = multiply_add(given[i], after[j][i], dreceptance);
      along_key[i] = multiply_add(g[j][i], key, along_key[i]);
      along_replacement[i] = multiply_add(g[j][i], replacement, along_replacement[i]);
    }
    wkv7_add(gradients + WKV7_RECEPTANCE * padded + c, dreceptance);
  }
  float sums[wkv7_rows], dlost[wkv7_rows];
  sums_of_four(along_key, sums);
  sums_of_four(along_replacement, dlost);
  for (uint32_t i = 0; i < count; i++) dvalue[i] = sums[i];
  vfloat learned[wkv7_rows], lost[wkv7_rows], dremoved[wkv7_rows];
  for (uint32_t i = 0; i < wkv7_rows; i++) {
    learned[i] = splat(i < count ? value[i] : 0), lost[i] = splat(-removed[i]), dremoved[i] = splat(-dlost[i]);
  }
  for (uint32_t c = 0, j = 0; c < padded; c += lanes, j++) {
    vfloat decay = load(token + WKV7_DECAY * padded + c), removal = load(token + WKV7_REMOVAL * padded + c);
    vfloat ddecay = {0}, dkey = {0}, dremoval = {0}, dreplacement = {0};
    for (uint32_t i = 0; i < wkv7_rows; i++) {
      dkey = multiply_add(learned[i], g[j][i], dkey);
      dreplacement = multiply_add(lost[i], g[j][i], dreplacement);
      dremoval = multiply_add(dremoved[i], before[j][i], dremoval);
      ddecay = multiply_add(g[j][i], before[j][i], ddecay);
      g[j][i] = multiply_add(dremoved[i], removal, g[j][i] * decay);
    }
    wkv7_add(gradients + WKV7_KEY * padded + c, dkey);
    wkv7_add(gradients + WKV7_REPLACEMENT * padded + c, dreplacement);
    wkv7_add(gradients + WKV7_REMOVAL * padded + c, dremoval);
    wkv7_add(gradients + WKV7_DECAY * padded + c, ddecay);
  }
}

// What one thread computes with at a time.
struct wkv7_room {
  _Alignas(64) float gathered[wkv7_most_gathered], gradients[wkv7_most_gathered];
  vfloat states[wkv7_most_states][wkv7_rows], g[wkv7_most_vectors][wkv7_rows];
  float removed[wkv7_chunk][wkv7_rows];
};

// One head in one chunk of a segment; rows are `width` floats apart.
struct wkv7_part {
  uint32_t tokens, width, is_first;
  const float *value, *dout;
  float* dvalue;
};

// Rows `first` and those after it of the matrix after a chunk.
static inline __attribute__((always_inline)) void wkv7_advance(const struct wkv7_part* part, struct wkv7_room* room, const float* from,
                                                               float* to, uint32_t first, uint32_t size) {
  const uint32_t count = size - first < wkv7_rows ? size - first : wkv7_rows, vectors = wkv7_padded(size) / lanes;
  wkv7_load(room->states, from + first * size, count, size);
  wkv7_recompute(room->gathered, part->tokens, part->value + first, part->width, count, size, room->states, room->removed);
  wkv7_store(room->states + part->tokens * vectors, to + first * size, count, size);
}

// The gradients of a chunk's tokens that rows `first` and those after it give.
//   before: the matrix before the chunk; later: the gradient of the one after it, or 0 where there is none; earlier: where the
//     gradient of `before` goes, which may be its own place; a segment's first chunk adds it to what other segments gave
static inline __attribute__((always_inline)) void wkv7_back(const struct wkv7_part* part, struct wkv7_room* room, const float* before,
                                                            const float* later, float* earlier, uint32_t first, uint32_t size) {
  const uint32_t count = size - first < wkv7_rows ? size - first : wkv7_rows;
  const uint32_t padded = wkv7_padded(size), vectors = padded / lanes, stride = wkv7_gathered * padded;
  wkv7_load(room->states, before + first * size, count, size);
  wkv7_recompute(room->gathered, part->tokens, part->value + first, part->width, count, size, room->states, room->removed);
  wkv7_load(room->g, later ? later + first * size : 0, later ? count : 0, size);
  for (uint32_t t = part->tokens; t-- > 0;) {
    const uint64_t at = (uint64_t)t * part->width + first;
    wkv7_step_back(room->gathered + t * stride, part->value + at, part->dout + at, room->gradients + t * stride, part->dvalue + at,
                   count, padded, room->states + t * vectors, room->states + (t + 1) * vectors, room->removed[t], room->g);
  }
  if (!earlier) return;
  if (part->is_first) {
    wkv7_load(room->states, earlier + first * size, count, size);
    for (uint32_t j = 0; j < vectors; j++) {
      for (uint32_t i = 0; i < wkv7_rows; i++) room->g[j][i] += room->states[j][i];
    }
  }
  wkv7_store(room->g, earlier + first * size, count, size);
}

static void wkv7_scatter(const float* gradients, const struct record* record, uint64_t place, uint32_t tokens, uint32_t size) {
  static const uint8_t address[wkv7_gathered] = {7, 8, 9, 11, 12};
  for (uint32_t t = 0; t < tokens; t++, place += record->width) {
    for (uint32_t n = 0; n < wkv7_gathered; n++, gradients += wkv7_padded(size)) {
      __builtin_memcpy(floats(record->address[address[n]]) + place, gradients, size * sizeof(float));
    }
  }
}

// One head over one segment: forward, keeping its matrix before each chunk but the first, then back, chunk by
// chunk. A kept matrix is not needed once its chunk's states are computed again; its gradient takes its place.
//   kept: the first, others `stride` floats apart; dfirst: the gradient of the matrix before the first token, or 0
static void wkv7_head_back(const struct record* record, const struct segment* segment, uint32_t head, uint32_t size, float* kept,
                           uint64_t stride, float* dfirst) {
  struct wkv7_room room;
  const float* initial = floats(segment->state) + record->state[0] + (uint64_t)head * size * size;
  const uint32_t last = (segment->count - 1) / wkv7_chunk;
  for (uint32_t step = 0; step <= 2 * last; step++) {
    const uint32_t is_forward = step < last, chunk = is_forward ? step : 2 * last - step, done = chunk * wkv7_chunk;
    const uint32_t tokens = segment->count - done < wkv7_chunk ? segment->count - done : wkv7_chunk;
    const uint64_t place = (uint64_t)(segment->start + done) * record->width + head * size;
    const struct wkv7_part part = {
        .tokens = tokens,
        .width = record->width,
        .is_first = chunk == 0,
        .value = floats(record->address[3]) + place,
        .dout = floats(record->address[6]) + place,
        .dvalue = floats(record->address[10]) + place,
    };
    float* own = chunk == 0 ? 0 : kept + (chunk - 1) * stride;
    float* next = kept + chunk * stride;
    wkv7_gather(record, place, tokens, size, room.gathered);
    if (!is_forward) __builtin_memset(room.gradients, 0, tokens * wkv7_gathered * wkv7_padded(size) * sizeof(float));
    for (uint32_t first = 0; first < size; first += wkv7_rows) {
      const float *before = own ? own : initial, *later = chunk == last ? 0 : next;
      float* earlier = own ? own : dfirst;
      if (is_forward && size == wkv7_usual_channels) wkv7_advance(&part, &room, before, next, first, wkv7_usual_channels);
      else if (is_forward) wkv7_advance(&part, &room, before, next, first, size);
      else if (size == wkv7_usual_channels) wkv7_back(&part, &room, before, later, earlier, first, wkv7_usual_channels);
      else wkv7_back(&part, &room, before, later, earlier, first, size);
    }
    if (!is_forward) wkv7_scatter(room.gradients, record, place, tokens, size);
  }
}

// The gradients of wkv7_forward.
//   address: receptance, decay, key, value, removal, replacement, dout [tokens, width]; then the gradients of the
//     first six in their order, kept [tokens, width * size / wkv7_chunk] with size = width / heads: room for matrices;
//     and that of the matrix that sequences begin with [width * size], summed over them, or 0 where it is not wanted
//   attribute: heads; state: matrix
// A sequence of n tokens keeps (n - 1) / wkv7_chunk matrices of each head, which its rows of `kept` have room for.
static void wkv7_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  const uint32_t heads = record->attribute[0].count, size = record->width / heads;
  const uint64_t stride = (uint64_t)record->width * size, kept_width = (stride + wkv7_chunk - 1) / wkv7_chunk;
  float* dfirst = floats(record->address[14]);
  // Sequences add to one gradient of the first matrix; where that is wanted, one thread has all sequences of a head.
  const uint32_t together = dfirst ? pass->segment_count : 1;
  struct range units = share_of(pass->segment_count / together * heads, 1, thread, pass->thread_count);
  for (uint32_t n = units.begin; n < units.end; n++) {
    const uint32_t head = n % heads, begin = n / heads * together;
    const uint64_t matrix = (uint64_t)head * size * size;
    if (dfirst) __builtin_memset(dfirst + matrix, 0, size * size * sizeof(float));
    for (const struct segment* segment = segments + begin; segment < segments + begin + together; segment++) {
      if (segment->count == 0) continue;
      float* kept = floats(record->address[13]) + segment->start * kept_width + matrix;
      wkv7_head_back(record, segment, head, size, kept, stride, dfirst ? dfirst + matrix : 0);
    }
  }
}
