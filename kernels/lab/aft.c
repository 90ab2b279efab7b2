// The Attention Free Transformer (Zhai et al., arXiv 2105.14103), causal: a weighted average of values in which each channel's
// weight of an earlier token is e^(key + bias), with a learned bias for positions near each other and none (0) for those further
// apart. Tokens within `window` are taken from these rows or from a ring of keys and values in the state; those before it are
// sums, as in wkv without decay. All exponentials are relative to a largest exponent. Threads share blocks of channels of all
// segments.

#include "lab/aft.h"

struct aft_sums {
  vfloat numerator, denominator, exponent;
};

// Sums over the tokens that each token of a tile sees; `exponent` is no less than any of theirs.
struct aft_tile_sums {
  float numerator[aft_tile * aft_channels], denominator[aft_tile * aft_channels], exponent[aft_tile * aft_channels];
};

static inline struct aft_sums aft_start(const struct aft* aft, uint32_t c) {
  uint64_t state = aft->segment->state;
  uint32_t left = aft->channels - c;
  return (struct aft_sums){load_up_to(aft_past(aft, state, 0) + c, left), load_up_to(aft_past(aft, state, 1) + c, left),
                           load_up_to(aft_past(aft, state, 2) + c, left)};
}

// The token that the next one is `window` away from joins the sums.
static inline struct aft_sums aft_leave(const struct aft* aft, struct aft_sums past, uint32_t position, uint32_t c) {
  if (position + 1 < aft->window) return past;
  uint32_t left = aft->channels - c;
  vfloat k = load_up_to(aft_row(aft, aft->key, 1, position + 1 - aft->window) + c, left);
  vfloat v = load_up_to(aft_row(aft, aft->value, 2, position + 1 - aft->window) + c, left);
  vfloat most = maximum(past.exponent, k);
  vfloat kept = exp_v(past.exponent - most), added = exp_v(k - most);
  return (struct aft_sums){kept * past.numerator + added * v, kept * past.denominator + added, most};
}

// The sums of the tokens from `position` on, whose past is `past` for each vector of channels; `past` then has those of these
// tokens, too.
static void aft_sum_tile(const struct aft* aft, uint32_t position, uint32_t tokens, struct aft_sums* past,
                         struct aft_tile_sums* sums) {
  _Alignas(64) struct aft_keys keys;
  _Alignas(64) struct aft_biases biases;
  _Alignas(64) float numerator[aft_tile * aft_channels], denominator[aft_tile * aft_channels];
  for (uint32_t c = 0; c < aft->channels; c += lanes) {
    struct aft_sums own = past[c / lanes];
    for (uint32_t t = 0; t < tokens; t++) {
      uint32_t i = t * aft_channels + c;
      store(sums->numerator + i, own.numerator);
      store(sums->denominator + i, own.denominator);
      store(sums->exponent + i, own.exponent);
      own = aft_leave(aft, own, position + t, c);
    }
    past[c / lanes] = own;
  }
  for (uint32_t from = aft_window_begin(aft, position), count; from < position + tokens; from += count) {
    count = aft_take_block(aft, position, tokens, from, position + tokens, &keys, &biases);
    uint32_t first = biases.begin * aft_channels, rows = biases.end - biases.begin;
    for (uint32_t i = first; i < biases.end * aft_channels; i++) numerator[i] = denominator[i] = 0;
    struct tile weights = {biases.weights + biases.begin * aft_tile, aft_tile, 1};
    uint32_t columns = (aft->channels + lanes - 1) / lanes * lanes;
    add_tile_product(numerator + first, aft_channels, weights, keys.weighted, aft_channels, rows, count, columns);
    add_tile_product(denominator + first, aft_channels, weights, keys.weights, aft_channels, rows, count, columns);
    for (uint32_t t = biases.begin; t < biases.end; t++) {
      for (uint32_t c = 0; c < aft->channels; c += lanes) {
        uint32_t i = t * aft_channels + c;
        vfloat before = load(sums->exponent + i), own = load(keys.most + c) + biases.most[t], most = maximum(before, own);
        vfloat kept = exp_v(before - most), added = exp_v(own - most);
        store(sums->numerator + i, kept * load(sums->numerator + i) + added * load(numerator + i));
        store(sums->denominator + i, kept * load(sums->denominator + i) + added * load(denominator + i));
        store(sums->exponent + i, most);
      }
    }
  }
}

// out[t] = sum over s <= t of e^(key[s] + bias) value[s] / sum over s <= t of e^(key[s] + bias)
//   address: key, value [tokens, width], bias, out [tokens, width]
static void aft_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  _Alignas(64) struct aft_tile_sums sums;
  _Alignas(64) struct aft_sums past[aft_channels / lanes];
  struct range units = share_of(pass->segment_count * aft_blocks(record), 1, thread, pass->thread_count);
  for (uint32_t unit = units.begin; unit < units.end; unit++) {
    struct aft aft = aft_at(pass, record, record->address[2], unit);
    uint32_t count = aft.segment->count, end = aft.cached + count;
    float* out = floats(record->address[3]) + (uint64_t)aft.segment->start * aft.width + aft.first;
    for (uint32_t c = 0; c < aft.channels; c += lanes) past[c / lanes] = aft_start(&aft, c);
    for (uint32_t first = 0; first < count; first += aft_tile) {
      uint32_t tokens = count - first < aft_tile ? count - first : aft_tile;
      aft_sum_tile(&aft, aft.cached + first, tokens, past, &sums);
      for (uint32_t t = 0; t < tokens; t++) {
        for (uint32_t c = 0; c < aft.channels; c += lanes) {
          uint32_t i = t * aft_channels + c;
          vfloat average = load(sums.numerator + i) / load(sums.denominator + i);
          store_up_to(out + (uint64_t)(first + t) * aft.width + c, average, aft.channels - c);
        }
      }
    }
    uint64_t next = aft.segment->next_state;
    for (uint32_t c = 0; c < aft.channels; c += lanes) {
      store_up_to(aft_past(&aft, next, 0) + c, past[c / lanes].numerator, aft.channels - c);
      store_up_to(aft_past(&aft, next, 1) + c, past[c / lanes].denominator, aft.channels - c);
      store_up_to(aft_past(&aft, next, 2) + c, past[c / lanes].exponent, aft.channels - c);
    }
    // What the ring of this state holds already stays where it is.
    uint32_t begin = end > aft.slots ? end - aft.slots : 0;
    if (next == aft.segment->state && begin < aft.cached) begin = aft.cached;
    for (uint32_t p = begin; p < end; p++) {
      const float *k = aft_row(&aft, aft.key, 1, p), *v = aft_row(&aft, aft.value, 2, p);
      uint64_t slot = (uint64_t)(p % aft.slots) * aft.width + aft.first;
      for (uint32_t c = 0; c < aft.channels; c++) {
        (floats(next) + record->state[1] + slot)[c] = k[c];
        (floats(next) + record->state[2] + slot)[c] = v[c];
      }
    }
    for (uint32_t c = 0; c < aft.channels; c++) (floats(next) + record->state[0] + aft.first)[c] = (float)end;
  }
}
