// What all kernels of the Attention Free Transformer share: tokens taken in tiles and blocks, so that exponentials of keys and of
// biases are taken once for each token and once for each pair, and their products summed as tiles.
#pragma once

#include "kernels.h"
#include "load_weights.h"
#include "products.h"

enum { aft_channels = 32, aft_tile = 32 };

// Beyond this difference between exponents in a tile, their products would lose digits: the tile is taken apart.
static const float aft_most_spread = 30;

// A block of channels of one segment. A bias is by position where `heads` is 0, else by head.
struct aft {
  const struct record* record;
  uint64_t bias;  // where the table of biases is
  const struct segment* segment;
  const float *key, *value;  // of these tokens, and these channels
  uint32_t width, window, slots, first, channels, cached, head;
};

static uint32_t aft_heads(const struct record* record) { return record->attribute[0].count ? record->attribute[0].count : 1; }

static uint32_t aft_blocks_of_head(const struct record* record) {
  return (record->inputs / aft_heads(record) + aft_channels - 1) / aft_channels;
}

static uint32_t aft_blocks(const struct record* record) { return aft_heads(record) * aft_blocks_of_head(record); }

//   address: key, value [tokens, width]; bias [matrix_rows, matrix_columns] of dtype
//   state: count [width], ring of keys, ring of values [slots * width], and the sums before: numerator, denominator, maxExponent,
//     one after another, each [width]
//   attribute: heads where biases are by head, else 0; slots of the ring
static struct aft aft_at(const struct pass* pass, const struct record* record, uint64_t bias, uint32_t unit) {
  uint32_t block = unit % aft_blocks(record), blocks_of_head = aft_blocks_of_head(record);
  const struct segment* segment = (const struct segment*)(uintptr_t)pass->segments + unit / aft_blocks(record);
  uint32_t size = record->inputs / aft_heads(record), in_head = block % blocks_of_head * aft_channels;
  uint32_t head = block / blocks_of_head, first = head * size + in_head;
  uint64_t row = (uint64_t)segment->start * record->inputs + first;
  return (struct aft){
      .record = record,
      .segment = segment,
      .bias = bias,
      .key = floats(record->address[0]) + row,
      .value = floats(record->address[1]) + row,
      .width = record->inputs,
      .window = record->matrix_columns,
      .slots = record->attribute[1].count,
      .first = first,
      .channels = size - in_head < aft_channels ? size - in_head : aft_channels,
      .cached = count_in_state((floats(segment->state) + record->state[0])[first], largest_position),
      .head = head,
  };
}

// Where the channels of the token at `position` are: in the rows of this pass, or in the ring.
static inline const float* aft_row(const struct aft* aft, const float* rows, uint32_t ring, uint32_t position) {
  if (position >= aft->cached) return rows + (uint64_t)(position - aft->cached) * aft->width;
  uint64_t slot = position % aft->slots;
  return floats(aft->segment->state) + aft->record->state[ring] + slot * aft->width + aft->first;
}

static inline float* aft_past(const struct aft* aft, uint64_t state, uint32_t which) {
  return floats(state) + aft->record->state[3] + which * aft->width + aft->first;
}

static inline uint32_t aft_bias_row(const struct aft* aft, uint32_t position) {
  uint32_t last = aft->record->matrix_rows - 1;
  return aft->record->attribute[0].count ? aft->head : position < last ? position : last;
}

// Tokens from `from` on as averages see them, each channel relative to its largest key: e^(key - most), and that times value.
struct aft_keys {
  float weights[aft_tile * aft_channels], weighted[aft_tile * aft_channels];
  float most[aft_channels];
};

// The largest difference between keys of a channel.
static float aft_take_keys(const struct aft* aft, uint32_t from, uint32_t count, struct aft_keys* keys) {
  vfloat spread = {0};
  for (uint32_t c = 0; c < aft->channels; c += lanes) {
    uint32_t left = aft->channels - c;
    vfloat most = load_up_to(aft_row(aft, aft->key, 1, from) + c, left), least = most;
    for (uint32_t s = 1; s < count; s++) {
      vfloat k = load_up_to(aft_row(aft, aft->key, 1, from + s) + c, left);
      most = maximum(most, k);
      least = -maximum(-least, -k);
    }
    spread = maximum(spread, most - least);
    store(keys->most + c, most);
    for (uint32_t s = 0; s < count; s++) {
      vfloat weight = exp_v(load_up_to(aft_row(aft, aft->key, 1, from + s) + c, left) - most);
      store(keys->weights + s * aft_channels + c, weight);
      store(keys->weighted + s * aft_channels + c, weight * load_up_to(aft_row(aft, aft->value, 2, from + s) + c, left));
    }
  }
  float largest = 0;
  for (int i = 0; i < lanes; i++) largest = spread[i] > largest ? spread[i] : largest;
  return largest;
}

// Biases of pairs: weights[t][s] is e^(bias - most) of the token at from + s for that at `position` + t, 0 where that one does
// not see it or has no bias for it. Tokens that see any are those from `begin` to `end`.
struct aft_biases {
  uint32_t begin, end;
  float weights[aft_tile * aft_tile], most[aft_tile];
};

// The largest difference between biases of a token.
static float aft_take_biases(const struct aft* aft, uint32_t position, uint32_t tokens, uint32_t from, uint32_t count,
                             struct aft_biases* biases) {
  const void* table = (const void*)(uintptr_t)aft->bias;
  uint32_t last = from + count - 1 + aft->window;  // the first token that sees none
  biases->begin = from > position ? from - position : 0;
  biases->end = last < position + tokens ? last - position : tokens;
  float spread = 0;
  for (uint32_t t = biases->begin; t < biases->end; t++) {
    uint32_t at = position + t, begin = at + 1 > from + aft->window ? at + 1 - aft->window - from : 0;
    uint32_t end = at - from + 1 < count ? at - from + 1 : count;
    uint64_t row = (uint64_t)aft_bias_row(aft, at) * aft->window;
    float *weights = biases->weights + t * aft_tile, most = -3.4e38f, least = 3.4e38f;
    for (uint32_t s = begin; s < end; s++) {
      float bias = weights[s] = load_weight(table, aft->record->dtype, row + (at - from - s));
      if (bias > most) most = bias;
      if (bias < least) least = bias;
    }
    if (most - least > spread) spread = most - least;
    biases->most[t] = most;
    for (uint32_t s = begin; s < end; s += lanes) {
      store_up_to(weights + s, exp_v(load_up_to(weights + s, end - s) - most), end - s);
    }
    for (uint32_t s = 0; s < begin; s++) weights[s] = 0;
    for (uint32_t s = end; s < count; s++) weights[s] = 0;
  }
  return spread;
}

// The window of any token from `position` on begins here.
static inline uint32_t aft_window_begin(const struct aft* aft, uint32_t position) {
  return position + 1 > aft->window ? position + 1 - aft->window : 0;
}

// Takes as many tokens from `from` on, at most to `end`, as one block may have: whose exponents are not too far apart for those
// from `position` on. Returns how many.
static uint32_t aft_take_block(const struct aft* aft, uint32_t position, uint32_t tokens, uint32_t from, uint32_t end,
                               struct aft_keys* keys, struct aft_biases* biases) {
  uint32_t count = aft->window < aft_tile ? aft->window : aft_tile;
  if (end - from < count) count = end - from;
  for (;; count = count / 2) {
    float spread = aft_take_keys(aft, from, count, keys) + aft_take_biases(aft, position, tokens, from, count, biases);
    if (count == 1 || spread <= aft_most_spread) return count;
  }
}
