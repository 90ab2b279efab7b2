// The Attention Free Transformer (Zhai et al., arXiv 2105.14103), causal: a weighted average of values in which each channel's weight of an
// earlier token is e^(key + bias), with a learned bias for positions near each other and none (0) for those further apart. Tokens within
// `window` are taken one by one, from these rows or from a ring of keys and values in the state; those before it are sums,
// as in wkv without decay. All exponentials are relative to the largest exponent. Threads share blocks of channels of all segments.

#include "kernels.h"
#include "load_weights.h"
#include "simd.h"

enum { aft_block = 64 };

// One block of channels of one segment. A bias is by position where `heads` is 0, else by head: then a block is a head.
struct aft {
  const struct record* record;
  const struct segment* segment;
  const float *key, *value;
  uint32_t width, window, slots, begin, end, cached, head;
};

static uint32_t aft_blocks(const struct record* record) {
  return record->count ? record->count : (record->width + aft_block - 1) / aft_block;
}

//   state: count [width], ring of keys, ring of values [slots * width], and the sums before: numerator, denominator, maxExponent, one
//     after another, each [width]
static struct aft aft_at(const struct pass* pass, const struct record* record, uint32_t unit) {
  uint32_t blocks = aft_blocks(record), block = unit % blocks;
  const struct segment* segment = (const struct segment*)(uintptr_t)pass->segments + unit / blocks;
  uint32_t size = record->count ? record->width / record->count : aft_block;
  uint32_t begin = block * size, end = begin + size < record->width ? begin + size : record->width;
  uint64_t first = (uint64_t)segment->start * record->width;
  return (struct aft){
      .record = record,
      .segment = segment,
      .key = floats(record->address[0]) + first,
      .value = floats(record->address[1]) + first,
      .width = record->width,
      .window = record->inputs,
      .slots = record->function,
      .begin = begin,
      .end = end,
      .cached = (uint32_t)(floats(segment->state) + record->state[0])[begin],
      .head = block,
  };
}

// The bias of the token `distance` before the one at `position`.
static inline float aft_bias(const struct aft* aft, uint32_t position, uint32_t distance) {
  const struct record* record = aft->record;
  uint32_t last = record->rows - 1;
  uint64_t row = record->count ? aft->head : position < last ? position : last;
  return load_weight((const void*)(uintptr_t)record->address[2], record->dtype, row * aft->window + distance);
}

// Where a channel of the token at `position` is: in the rows of this pass, or in the ring.
static inline const float* aft_row(const struct aft* aft, const float* rows, uint32_t ring, uint32_t position, uint32_t c) {
  if (position >= aft->cached) return rows + (uint64_t)(position - aft->cached) * aft->width + c;
  return floats(aft->segment->state) + aft->record->state[ring] + (uint64_t)(position % aft->slots) * aft->width + c;
}

struct aft_sums {
  vfloat numerator, denominator, exponent;
};

static inline const float* aft_past(const struct aft* aft, uint64_t state, uint32_t which) {
  return floats(state) + aft->record->state[3] + which * aft->width;
}

// The token that the next one is `window` away from joins the sums.
static inline struct aft_sums aft_leave(const struct aft* aft, struct aft_sums past, uint32_t position, uint32_t c, uint32_t left) {
  if (position + 1 < aft->window) return past;
  vfloat k = load_up_to(aft_row(aft, aft->key, 1, position + 1 - aft->window, c), left);
  vfloat v = load_up_to(aft_row(aft, aft->value, 2, position + 1 - aft->window, c), left);
  vfloat most = maximum(past.exponent, k);
  vfloat kept = exp_v(past.exponent - most), added = exp_v(k - most);
  return (struct aft_sums){kept * past.numerator + added * v, kept * past.denominator + added, most};
}

static inline struct aft_sums aft_start(const struct aft* aft, uint32_t c, uint32_t left) {
  uint64_t state = aft->segment->state;
  return (struct aft_sums){load_up_to(aft_past(aft, state, 0) + c, left), load_up_to(aft_past(aft, state, 1) + c, left),
                           load_up_to(aft_past(aft, state, 2) + c, left)};
}

// The average at a position, with its largest exponent and its sum of weights.
static inline struct aft_sums aft_average(const struct aft* aft, struct aft_sums past, uint32_t position, uint32_t c, uint32_t left) {
  uint32_t near = position + 1 < aft->window ? position + 1 : aft->window;
  vfloat most = past.exponent;
  for (uint32_t j = 0; j < near; j++) {
    most = maximum(most, load_up_to(aft_row(aft, aft->key, 1, position - j, c), left) + aft_bias(aft, position, j));
  }
  vfloat kept = exp_v(past.exponent - most), numerator = kept * past.numerator, denominator = kept * past.denominator;
  for (uint32_t j = 0; j < near; j++) {
    vfloat k = load_up_to(aft_row(aft, aft->key, 1, position - j, c), left);
    vfloat weight = exp_v(k + aft_bias(aft, position, j) - most);
    numerator += weight * load_up_to(aft_row(aft, aft->value, 2, position - j, c), left);
    denominator += weight;
  }
  return (struct aft_sums){numerator / denominator, denominator, most};
}

// out[t] = sum over s <= t of e^(key[s] + bias) value[s] / sum over s <= t of e^(key[s] + bias)
//   address: key, value [tokens, width], bias [rows, inputs] of dtype, out [tokens, width]
//   inputs: window; function: slots of the ring; count: heads where biases are by head, else 0
static void aft_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  struct range units = share_of(pass->segment_count * aft_blocks(record), 1, thread, pass->thread_count);
  for (uint32_t unit = units.begin; unit < units.end; unit++) {
    struct aft aft = aft_at(pass, record, unit);
    uint32_t count = aft.segment->count, end = aft.cached + count;
    float* out = floats(record->address[3]) + (uint64_t)aft.segment->start * aft.width;
    float* next = floats(aft.segment->next_state);
    for (uint32_t c = aft.begin; c < aft.end; c += lanes) {
      uint32_t left = aft.end - c;
      struct aft_sums past = aft_start(&aft, c, left);
      for (uint32_t t = 0; t < count; t++) {
        store_up_to(out + (uint64_t)t * aft.width + c, aft_average(&aft, past, aft.cached + t, c, left).numerator, left);
        past = aft_leave(&aft, past, aft.cached + t, c, left);
      }
      store_up_to((float*)aft_past(&aft, aft.segment->next_state, 0) + c, past.numerator, left);
      store_up_to((float*)aft_past(&aft, aft.segment->next_state, 1) + c, past.denominator, left);
      store_up_to((float*)aft_past(&aft, aft.segment->next_state, 2) + c, past.exponent, left);
      for (uint32_t p = end > aft.slots ? end - aft.slots : 0; p < end; p++) {
        uint64_t slot = (uint64_t)(p % aft.slots) * aft.width + c;
        vfloat k = load_up_to(aft_row(&aft, aft.key, 1, p, c), left), v = load_up_to(aft_row(&aft, aft.value, 2, p, c), left);
        store_up_to(next + record->state[1] + slot, k, left);
        store_up_to(next + record->state[2] + slot, v, left);
      }
      store_up_to(next + record->state[0] + c, splat((float)end), left);
    }
  }
}

// The gradient of aft_forward for the keys and values of these tokens: with p the weight of a token over their sum,
// dvalue = p dout, dkey = p dout (value - out). Tokens that lie before the window of later ones get theirs from sums that are
// carried back, relative to an exponent as in wkv_gradient.
//   address: key, value [tokens, width], bias, dout, out [tokens, width]; then dkey, dvalue [tokens, width], and largest exponents
//     and sums of weights [tokens, 2 * width]
static void aft_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  struct range units = share_of(pass->segment_count * aft_blocks(record), 1, thread, pass->thread_count);
  for (uint32_t unit = units.begin; unit < units.end; unit++) {
    struct aft aft = aft_at(pass, record, unit);
    uint32_t count = aft.segment->count;
    uint64_t first = (uint64_t)aft.segment->start * aft.width;
    const float* dout = floats(record->address[3]) + first;
    const float* out = floats(record->address[4]) + first;
    float *dkey = floats(record->address[5]) + first, *dvalue = floats(record->address[6]) + first;
    float* moments = floats(record->address[7]) + 2 * first;
    for (uint32_t c = aft.begin; c < aft.end; c += lanes) {
      uint32_t left = aft.end - c;
      struct aft_sums past = aft_start(&aft, c, left);
      for (uint32_t t = 0; t < count; t++) {
        struct aft_sums average = aft_average(&aft, past, aft.cached + t, c, left);
        past = aft_leave(&aft, past, aft.cached + t, c, left);
        store_up_to(moments + (uint64_t)t * 2 * aft.width + c, average.exponent, left);
        store_up_to(moments + ((uint64_t)t * 2 + 1) * aft.width + c, average.denominator, left);
      }
      vfloat dnumerator = {0}, ddenominator = {0}, exponent = splat(-1e30f);
      for (uint32_t s = count; s-- > 0;) {
        uint64_t at = (uint64_t)s * aft.width + c;
        vfloat k = load_up_to(aft.key + at, left), v = load_up_to(aft.value + at, left), dk = {0}, dv = {0};
        for (uint32_t j = 0; j < aft.window && s + j < count; j++) {
          uint64_t row = (uint64_t)(s + j) * aft.width + c;
          vfloat most = load_up_to(moments + (uint64_t)(s + j) * 2 * aft.width + c, left);
          vfloat total = load_up_to(moments + ((uint64_t)(s + j) * 2 + 1) * aft.width + c, left);
          vfloat through = exp_v(k + aft_bias(&aft, aft.cached + s + j, j) - most) / total * load_up_to(dout + row, left);
          dv += through;
          dk += through * (v - load_up_to(out + row, left));
        }
        if (s + aft.window < count) {
          uint64_t t = s + aft.window, row = t * aft.width + c;
          vfloat most = load_up_to(moments + t * 2 * aft.width + c, left);
          vfloat scaled = load_up_to(dout + row, left) / load_up_to(moments + (t * 2 + 1) * aft.width + c, left);
          vfloat larger = maximum(exponent, -most);
          vfloat kept = exp_v(exponent - larger), added = exp_v(-most - larger) * scaled;
          dnumerator = kept * dnumerator + added;
          ddenominator = kept * ddenominator - added * load_up_to(out + row, left);
          exponent = larger;
        }
        vfloat weight = exp_v(k + exponent);
        store_up_to(dkey + at, dk + weight * (dnumerator * v + ddenominator), left);
        store_up_to(dvalue + at, dv + weight * dnumerator, left);
      }
    }
  }
}

// The gradient of aft_forward for its biases: for each row of them the sum over tokens and channels of p dout (value - out). Threads
// share the rows.
//   address: key, value [tokens, width], bias, dout, out [tokens, width], exponents and sums [tokens, 2 * width]; then dbias
//     [rows, inputs]
static void aft_bias_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  uint32_t window = record->inputs, width = record->width, blocks = aft_blocks(record);
  float* dbias = floats(record->address[6]);
  struct range rows = share_of(record->rows, 1, thread, pass->thread_count);
  for (uint64_t i = (uint64_t)rows.begin * window; i < (uint64_t)rows.end * window; i++) dbias[i] = 0;
  for (uint32_t unit = 0; unit < pass->segment_count * blocks; unit++) {
    struct aft aft = aft_at(pass, record, unit);
    uint64_t first = (uint64_t)aft.segment->start * width;
    const float* dout = floats(record->address[3]) + first;
    const float* out = floats(record->address[4]) + first;
    const float* moments = floats(record->address[5]) + 2 * first;
    for (uint32_t t = 0; t < aft.segment->count; t++) {
      uint32_t position = aft.cached + t;
      uint32_t row = record->count ? aft.head : position < record->rows ? position : record->rows - 1;
      if (row < rows.begin || row >= rows.end) continue;
      for (uint32_t j = 0; j <= t && j < window; j++) {
        float bias = aft_bias(&aft, position, j), total = 0;
        for (uint32_t c = aft.begin; c < aft.end; c += lanes) {
          uint32_t left = aft.end - c;
          uint64_t at = (uint64_t)t * width + c, from = (uint64_t)(t - j) * width + c;
          vfloat most = load_up_to(moments + (uint64_t)t * 2 * width + c, left);
          vfloat weights = load_up_to(moments + ((uint64_t)t * 2 + 1) * width + c, left);
          vfloat k = load_up_to(aft.key + from, left), v = load_up_to(aft.value + from, left);
          vfloat term = exp_v(k + bias - most) * load_up_to(dout + at, left) * (v - load_up_to(out + at, left));
          for (uint32_t i = 0; i < lanes && i < left; i++) total += term[i] / weights[i];
        }
        dbias[(uint64_t)row * window + j] += total;
      }
    }
  }
}
