// The gradients of the Attention Free Transformer's average (aft.c), block by block like it: with p the weight of a token over
// the sum of weights, dvalue = p dout, dkey = dbias = p dout (value - out).

#include "lab/aft.h"

// What the results of a tile of tokens pass on to a block of keys and biases: scaled[t] = dout / sum of weights, and `negated`,
// that times -out, both times e^(exponent of key + exponent of bias - exponent of the sum).
struct aft_results {
  float scaled[aft_tile * aft_channels], negated[aft_tile * aft_channels];
};

// Rows of a kind are `width` apart, those of moments, the exponents and sums of weights, twice as far.
struct aft_gradients {
  const float *dout, *out, *moments;
};

static void aft_take_results(const struct aft* aft, const struct aft_gradients* from, uint32_t first, const struct aft_keys* keys,
                             const struct aft_biases* biases, struct aft_results* results) {
  for (uint32_t t = biases->begin; t < biases->end; t++) {
    for (uint32_t c = 0; c < aft->channels; c += lanes) {
      uint32_t left = aft->channels - c;
      uint64_t row = (uint64_t)(first + t) * aft->width;
      vfloat exponent = load_up_to(from->moments + 2 * row + c, left);
      vfloat total = load_up_to(from->moments + 2 * row + aft->width + c, left);
      vfloat scale = exp_v(load(keys->most + c) + biases->most[t] - exponent);
      // Lanes beyond the channels have a sum of 0.
      vfloat scaled = choose(total > 0, scale * load_up_to(from->dout + row + c, left) / total, splat(0));
      store(results->scaled + t * aft_channels + c, scaled);
      store(results->negated + t * aft_channels + c, -scaled * load_up_to(from->out + row + c, left));
    }
  }
}

static inline float* aft_rows(const struct aft* aft, uint64_t address) {
  return floats(address) + (uint64_t)aft->segment->start * aft->width + aft->first;
}

// Tokens that lie before the window of later ones: what those pass on is summed on the way back, relative to an exponent as in
// wkv_gradient.
static void aft_gradient_beyond(const struct aft* aft, const struct aft_gradients* from, float* dkey, float* dvalue) {
  uint32_t count = aft->segment->count;
  for (uint32_t c = 0; c < aft->channels; c += lanes) {
    uint32_t left = aft->channels - c;
    vfloat dnumerator = {0}, ddenominator = {0}, exponent = splat(-1e30f);
    for (uint32_t s = count > aft->window ? count - aft->window : 0; s-- > 0;) {
      uint64_t at = (uint64_t)s * aft->width + c, later = (uint64_t)(s + aft->window) * aft->width;
      vfloat own = -load_up_to(from->moments + 2 * later + c, left), larger = maximum(exponent, own);
      vfloat total = load_up_to(from->moments + 2 * later + aft->width + c, left);
      vfloat added = exp_v(own - larger) * load_up_to(from->dout + later + c, left) / total, kept = exp_v(exponent - larger);
      dnumerator = kept * dnumerator + added;
      ddenominator = kept * ddenominator - added * load_up_to(from->out + later + c, left);
      exponent = larger;
      vfloat weight = exp_v(load_up_to(aft->key + at, left) + exponent);
      vfloat value = load_up_to(aft->value + at, left);
      store_up_to(dkey + at, load_up_to(dkey + at, left) + weight * (dnumerator * value + ddenominator), left);
      store_up_to(dvalue + at, load_up_to(dvalue + at, left) + weight * dnumerator, left);
    }
  }
}

// A block of tokens of this pass as the results of a tile learn of it; its first token, and how many.
struct aft_gradient_block {
  struct aft_keys keys;
  struct aft_biases biases;
  struct aft_results results;
  uint32_t from, count;
};

// The block from `from` on for the tile that begins with token `first`; from the window's beginning, or that of the pass, where
// that is later. Tokens in the state are taken as they are. Returns whether there is one.
static int aft_next_block(const struct aft* aft, const struct aft_gradients* gradients, uint32_t first, uint32_t tokens,
                          uint32_t from, struct aft_gradient_block* block) {
  uint32_t position = aft->cached + first, begin = aft_window_begin(aft, position);
  if (from < begin) from = begin;
  if (from < aft->cached) from = aft->cached;
  if (from >= position + tokens) return 0;
  block->from = from;
  block->count = aft_take_block(aft, position, tokens, from, position + tokens, &block->keys, &block->biases);
  aft_take_results(aft, gradients, first, &block->keys, &block->biases, &block->results);
  return 1;
}

// Tokens less than the window before those of the tile.
static void aft_gradient_tile(const struct aft* aft, const struct aft_gradients* from, uint32_t first, uint32_t tokens,
                              float* dkey, float* dvalue) {
  _Alignas(64) struct aft_gradient_block block;
  _Alignas(64) float scaled[aft_tile * aft_channels], negated[aft_tile * aft_channels];
  for (uint32_t s = 0; aft_next_block(aft, from, first, tokens, s, &block); s = block.from + block.count) {
    for (uint32_t i = 0; i < block.count * aft_channels; i++) scaled[i] = negated[i] = 0;
    uint32_t begin = block.biases.begin, rows = block.biases.end - begin, at = begin * aft_channels;
    struct tile weights = {block.biases.weights + begin * aft_tile, 1, aft_tile};
    uint32_t columns = (aft->channels + lanes - 1) / lanes * lanes;
    add_tile_product(scaled, aft_channels, weights, block.results.scaled + at, aft_channels, block.count, rows, columns);
    add_tile_product(negated, aft_channels, weights, block.results.negated + at, aft_channels, block.count, rows, columns);
    for (uint32_t j = 0; j < block.count; j++) {
      for (uint32_t c = 0; c < aft->channels; c += lanes) {
        uint32_t i = j * aft_channels + c, left = aft->channels - c;
        uint64_t row = (uint64_t)(block.from + j - aft->cached) * aft->width + c;
        vfloat weight = load(block.keys.weights + i), dv = weight * load(scaled + i);
        vfloat dk = load(block.keys.weighted + i) * load(scaled + i) + weight * load(negated + i);
        store_up_to(dkey + row, load_up_to(dkey + row, left) + dk, left);
        store_up_to(dvalue + row, load_up_to(dvalue + row, left) + dv, left);
      }
    }
  }
}

// For the keys and values of these tokens.
//   address: key, value, dout, out [tokens, width], bias; then dkey, dvalue [tokens, width], and largest exponents and sums of
//     weights [tokens, 2 * width]
static void aft_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  _Alignas(64) struct aft_tile_sums sums;
  _Alignas(64) struct aft_sums past[aft_channels / lanes];
  struct range units = share_of(pass->segment_count * aft_blocks(record), 1, thread, pass->thread_count);
  for (uint32_t unit = units.begin; unit < units.end; unit++) {
    struct aft aft = aft_at(pass, record, record->address[4], unit);
    uint32_t count = aft.segment->count;
    float* moments = floats(record->address[7]) + 2 * (uint64_t)aft.segment->start * aft.width + aft.first;
    const struct aft_gradients from = {aft_rows(&aft, record->address[2]), aft_rows(&aft, record->address[3]), moments};
    float *dkey = aft_rows(&aft, record->address[5]), *dvalue = aft_rows(&aft, record->address[6]);
    for (uint32_t c = 0; c < aft.channels; c += lanes) past[c / lanes] = aft_start(&aft, c);
    for (uint32_t first = 0; first < count; first += aft_tile) {
      uint32_t tokens = count - first < aft_tile ? count - first : aft_tile;
      aft_sum_tile(&aft, aft.cached + first, tokens, past, &sums);
      for (uint32_t t = 0; t < tokens; t++) {
        uint64_t row = (uint64_t)(first + t) * aft.width;
        for (uint32_t c = 0; c < aft.channels; c++) {
          moments[2 * row + c] = sums.exponent[t * aft_channels + c];
          moments[2 * row + aft.width + c] = sums.denominator[t * aft_channels + c];
          dkey[row + c] = dvalue[row + c] = 0;
        }
      }
      aft_gradient_tile(&aft, &from, first, tokens, dkey, dvalue);
    }
    aft_gradient_beyond(&aft, &from, dkey, dvalue);
  }
}

// A row of biases belongs to one thread: a head's, or those of a tile of positions.
static int aft_owns_row(const struct pass* pass, const struct record* record, uint32_t row, uint32_t thread) {
  return (record->attribute[0].count ? row : row / aft_tile) % pass->thread_count == thread;
}

static void aft_bias_gradient_tile(const struct aft* aft, const struct aft_gradients* from, uint32_t first, uint32_t tokens,
                                   float* dbias) {
  _Alignas(64) struct aft_gradient_block block;
  _Alignas(64) float transposed[aft_channels * aft_tile], products[aft_tile * aft_tile];
  for (uint32_t s = 0; aft_next_block(aft, from, first, tokens, s, &block); s = block.from + block.count) {
    for (uint32_t i = 0; i < aft_tile * aft_tile; i++) products[i] = 0;
    uint32_t begin = block.biases.begin, rows = block.biases.end - begin, count = block.count;
    const float *results_of[] = {block.results.scaled, block.results.negated};
    const float *keys_of[] = {block.keys.weighted, block.keys.weights};
    for (int part = 0; part < 2; part++) {
      for (uint32_t c = 0; c < aft->channels; c++) {
        for (uint32_t j = 0; j < aft_tile; j++) {
          transposed[c * aft_tile + j] = j < count ? keys_of[part][j * aft_channels + c] : 0;
        }
      }
      struct tile left = {results_of[part] + begin * aft_channels, aft_channels, 1};
      add_tile_product(products + begin * aft_tile, aft_tile, left, transposed, aft_tile, rows, aft->channels, aft_tile);
    }
    for (uint32_t t = begin; t < block.biases.end; t++) {
      uint32_t at = aft->cached + first + t;
      float* row = dbias + (uint64_t)aft_bias_row(aft, at) * aft->window;
      for (uint32_t j = 0; j < count && block.from + j <= at; j++) {
        uint32_t distance = at - block.from - j;
        if (distance < aft->window) row[distance] += block.biases.weights[t * aft_tile + j] * products[t * aft_tile + j];
      }
    }
  }
}

// For biases: for each row of them the sum over tokens and channels. Threads share the tiles of positions, or the heads.
//   address: key, value, dout, out [tokens, width], exponents and sums [tokens, 2 * width], bias; then dbias, of its shape
static void aft_bias_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  uint32_t blocks = aft_blocks(record);
  float* dbias = floats(record->address[6]);
  for (uint32_t row = 0; row < record->matrix_rows; row++) {
    if (!aft_owns_row(pass, record, row, thread)) continue;
    for (uint64_t i = 0; i < record->matrix_columns; i++) dbias[(uint64_t)row * record->matrix_columns + i] = 0;
  }
  for (uint32_t unit = 0; unit < pass->segment_count * blocks; unit++) {
    struct aft aft = aft_at(pass, record, record->address[5], unit);
    const float* moments = floats(record->address[4]) + 2 * (uint64_t)aft.segment->start * aft.width + aft.first;
    const struct aft_gradients from = {aft_rows(&aft, record->address[2]), aft_rows(&aft, record->address[3]), moments};
    // Tiles begin where those of every other segment do, so that a row of biases has one owner.
    for (uint32_t first = 0, tokens; first < aft.segment->count; first += tokens) {
      tokens = aft_tile - (aft.cached + first) % aft_tile;
      if (aft.segment->count - first < tokens) tokens = aft.segment->count - first;
      if (!aft_owns_row(pass, record, aft_bias_row(&aft, aft.cached + first), thread)) continue;
      aft_bias_gradient_tile(&aft, &from, first, tokens, dbias);
    }
  }
}
