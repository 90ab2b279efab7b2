// The recurrence of RWKV-7 (arXiv 2503.14456, section 3): each head has a matrix of values by keys, which decays, forgets
// what it holds along one direction, and learns one outer product a token. It walks along time; the rows of a head's
// matrix, heads and sequences are independent. Of some tokens at a time the rows that a head needs are gathered, and a few
// rows of its matrix walk over these; so both stay in the first cache. Sums have the same order in pieces of any length.

#include "kernels.h"
#include "simd.h"

// Rows of a matrix that walk together, tokens that are gathered, and channels of the widest head (src/graph/operations/wkv7.ts).
enum { wkv7_rows = 4, wkv7_chunk = 16, wkv7_most_channels = 128, wkv7_usual_channels = 64 };
enum { wkv7_most_vectors = wkv7_most_channels / lanes };

// What is gathered of each token, in this order: all that the rows of a matrix share.
enum { WKV7_RECEPTANCE, WKV7_DECAY, WKV7_KEY, WKV7_REMOVAL, WKV7_REPLACEMENT, wkv7_gathered };
enum { wkv7_most_gathered = wkv7_chunk * wkv7_gathered * wkv7_most_channels };

// Floats of a head with those that fill its last vector.
static inline uint32_t wkv7_padded(uint32_t size) { return (size + lanes - 1) / lanes * lanes; }

// Gathers tokens of one head, of which the first begins at float `place` of each input. What fills a vector is 0.
static void wkv7_gather(const struct record* record, uint64_t place, uint32_t tokens, uint32_t size, float* to) {
  static const uint8_t address[wkv7_gathered] = {0, 1, 2, 4, 5};
  const uint32_t padded = wkv7_padded(size);
  for (uint32_t t = 0; t < tokens; t++, place += record->width) {
    for (uint32_t n = 0; n < wkv7_gathered; n++, to += padded) {
      __builtin_memcpy(to, floats(record->address[address[n]]) + place, size * sizeof(float));
      for (uint32_t c = size; c < padded; c++) to[c] = 0;
    }
  }
}

// `count` rows of a head's matrix; the others are 0.
static inline __attribute__((always_inline)) void wkv7_load(vfloat s[][wkv7_rows], const float* from, uint32_t count, uint32_t size) {
  for (uint32_t c = 0, j = 0; c < size; c += lanes, j++) {
    for (uint32_t i = 0; i < wkv7_rows; i++) s[j][i] = i < count ? load_up_to(from + i * size + c, size - c) : splat(0);
  }
}

static inline __attribute__((always_inline)) void wkv7_store(vfloat s[][wkv7_rows], float* to, uint32_t count, uint32_t size) {
  for (uint32_t c = 0, j = 0; c < size; c += lanes, j++) {
    for (uint32_t i = 0; i < count; i++) store_up_to(to + i * size + c, s[j][i], size - c);
  }
}

// removed[i] = the product of row i and the removal key of a gathered token.
static inline __attribute__((always_inline)) void wkv7_removed(vfloat s[][wkv7_rows], const float* token, uint32_t padded,
                                                               float removed[wkv7_rows]) {
  vfloat sums[wkv7_rows] = {0};
  for (uint32_t c = 0, j = 0; c < padded; c += lanes, j++) {
    vfloat removal = load(token + WKV7_REMOVAL * padded + c);
    for (uint32_t i = 0; i < wkv7_rows; i++) sums[i] = multiply_add(s[j][i], removal, sums[i]);
  }
  sums_of_four(sums, removed);
}

// Elements of a row after a token, of which `lost` is what was removed with its sign turned.
static inline vfloat wkv7_next(vfloat s, vfloat decay, vfloat value, vfloat key, vfloat lost, vfloat replacement) {
  return multiply_add(lost, replacement, multiply_add(value, key, s * decay));
}

// Rows `first` and those after it of one head, over gathered tokens.
//   value, out: of the head's first channel at the first token; rows are `width` floats apart
//   from, to: the head's matrix before and after
static inline __attribute__((always_inline)) void wkv7_walk(const float* token, uint32_t tokens, const float* value, float* out,
                                                            uint32_t width, const float* from, float* to, uint32_t first,
                                                            uint32_t size) {
  const uint32_t count = size - first < wkv7_rows ? size - first : wkv7_rows, padded = wkv7_padded(size);
  vfloat s[wkv7_most_vectors][wkv7_rows];
  wkv7_load(s, from + first * size, count, size);
  value += first, out += first;
  for (uint32_t t = 0; t < tokens; t++, token += wkv7_gathered * padded, value += width, out += width) {
    float removed[wkv7_rows], result[wkv7_rows];
    vfloat lost[wkv7_rows], learned[wkv7_rows], sums[wkv7_rows] = {0};
    wkv7_removed(s, token, padded, removed);
    for (uint32_t i = 0; i < wkv7_rows; i++) lost[i] = splat(-removed[i]), learned[i] = splat(i < count ? value[i] : 0);
    for (uint32_t c = 0, j = 0; c < padded; c += lanes, j++) {
      vfloat decay = load(token + WKV7_DECAY * padded + c), key = load(token + WKV7_KEY * padded + c);
      vfloat replacement = load(token + WKV7_REPLACEMENT * padded + c), receptance = load(token + WKV7_RECEPTANCE * padded + c);
      for (uint32_t i = 0; i < wkv7_rows; i++) {
        s[j][i] = wkv7_next(s[j][i], decay, learned[i], key, lost[i], replacement);
        sums[i] = multiply_add(s[j][i], receptance, sums[i]);
      }
    }
    sums_of_four(sums, result);
    for (uint32_t i = 0; i < count; i++) out[i] = result[i];
  }
  wkv7_store(s, to + first * size, count, size);
}

// One head over one segment. Heads of the usual size have loops of known length.
static void wkv7_head(const struct record* record, const struct segment* segment, uint32_t head, uint32_t size) {
  _Alignas(64) float gathered[wkv7_most_gathered];
  const uint64_t matrix = record->state[0] + (uint64_t)head * size * size;
  const float* from = floats(segment->state) + matrix;
  float* to = floats(segment->next_state) + matrix;
  for (uint32_t done = 0; done < segment->count; done += wkv7_chunk, from = to) {
    const uint32_t tokens = segment->count - done < wkv7_chunk ? segment->count - done : wkv7_chunk;
    const uint64_t place = (uint64_t)(segment->start + done) * record->width + head * size;
    const float* value = floats(record->address[3]) + place;
    float* out = floats(record->address[6]) + place;
    wkv7_gather(record, place, tokens, size, gathered);
    for (uint32_t first = 0; first < size; first += wkv7_rows) {
      if (size == wkv7_usual_channels) {
        wkv7_walk(gathered, tokens, value, out, record->width, from, to, first, wkv7_usual_channels);
      } else wkv7_walk(gathered, tokens, value, out, record->width, from, to, first, size);
    }
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
