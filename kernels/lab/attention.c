// Causal softmax attention (Vaswani et al., arXiv 1706.03762, section 3.2), with the keys and values of earlier tokens in the
// state. Queries are taken in tiles and keys in blocks; the sums of the softmax are relative to the largest score so far (Milakov
// and Gimelshein, arXiv 1805.02867), so that no more than a tile of scores is stored. Scores lie with a key's queries side by
// side: then the softmax goes element by element. Threads share the heads of all segments.

#include "kernels.h"
#include "products.h"

enum { query_tile = 32, key_block = 32, widest_head = 256 };

// Where one head of one segment finds its keys and values: those of earlier tokens in the state, those of these tokens in rows.
struct head {
  const struct segment* segment;
  const float *cached_keys, *cached_values, *keys, *values;
  uint32_t cached, width, size, number;
  uint64_t first;  // float of its first row in queries and results
  float scale;
};

static struct head head_at(const struct pass* pass, const struct record* record, uint32_t unit) {
  const struct segment* segment = (const struct segment*)(uintptr_t)pass->segments + unit / record->attribute[0].count;
  uint32_t width = record->width, size = width / record->attribute[0].count, h = unit % record->attribute[0].count;
  const float* state = floats(segment->state);
  uint64_t first = (uint64_t)segment->start * width + h * size;
  return (struct head){
      .segment = segment,
      .cached_keys = state + record->state[1] + h * size,
      .cached_values = state + record->state[2] + h * size,
      .keys = floats(record->address[1]) + first,
      .values = floats(record->address[2]) + first,
      .cached = count_in_state(state[record->state[0] + h], record->attribute[1].count),
      .width = width,
      .size = size,
      .number = h,
      .first = first,
      .scale = 1 / __builtin_sqrtf((float)size),
  };
}

static inline const float* key_of(const struct head* head, uint32_t index) {
  return index < head->cached ? head->cached_keys + (uint64_t)index * head->width
                              : head->keys + (uint64_t)(index - head->cached) * head->width;
}

static inline const float* value_of(const struct head* head, uint32_t index) {
  return index < head->cached ? head->cached_values + (uint64_t)index * head->width
                              : head->values + (uint64_t)(index - head->cached) * head->width;
}

// Keys from `from` on, before `end`, that lie one after another.
static inline uint32_t keys_from(const struct head* head, uint32_t from, uint32_t end) {
  if (from < head->cached && head->cached < end) end = head->cached;
  return end - from < key_block ? end - from : key_block;
}

// Some consecutive queries of a head.
struct queries {
  uint32_t first, count, columns;         // token of these rows; how many; rounded up to whole vectors
  float transposed[widest_head * query_tile];  // [size, query_tile], times the scale
  float most[query_tile], total[query_tile];   // largest score so far, and the sum of e^(score - most)
};

static void transpose_rows(const float* rows, uint64_t row, uint32_t count, uint32_t size, float factor, float* to) {
  for (uint32_t c = 0; c < size; c++) {
    for (uint32_t t = 0; t < query_tile; t++) to[c * query_tile + t] = t < count ? factor * rows[t * row + c] : 0;
  }
}

static void take_queries(struct queries* queries, const struct head* head, const float* rows, uint32_t first) {
  uint32_t left = head->segment->count - first;
  queries->first = first;
  queries->count = left < query_tile ? left : query_tile;
  queries->columns = (queries->count + lanes - 1) / lanes * lanes;
  transpose_rows(rows + (uint64_t)first * head->width, head->width, queries->count, head->size, head->scale, queries->transposed);
  for (uint32_t t = 0; t < query_tile; t++) {
    queries->most[t] = -1e30f;
    queries->total[t] = 0;
  }
}

// scores[j][t] of key from + j and query t; of keys that come after a query, so low that they weigh nothing.
static void score(const struct queries* queries, const struct head* head, uint32_t from, uint32_t keys, float* scores) {
  for (uint32_t i = 0; i < keys * query_tile; i++) scores[i] = 0;
  const struct tile left = {key_of(head, from), head->width, 1};
  if (queries->count > 1) {
    add_tile_product(scores, query_tile, left, queries->transposed, query_tile, keys, head->size, queries->columns);
  } else {
    float query[widest_head];
    for (uint32_t c = 0; c < head->size; c++) query[c] = queries->transposed[c * query_tile];
    for (uint32_t j = 0; j < keys; j++) scores[j * query_tile] = dot_product(query, left.at + j * left.row, head->size);
  }
  uint32_t position = head->cached + queries->first;
  for (uint32_t j = 0; j < keys; j++) {
    for (uint32_t t = 0; t < query_tile && position + t < from + j; t++) scores[j * query_tile + t] = -1e30f;
  }
}

// Scores become e^(score - most), and are added to the totals; what was summed before is to be multiplied by `kept`.
static void add_scores(struct queries* queries, float* scores, uint32_t keys, float* kept) {
  for (uint32_t t = 0; t < queries->columns; t += lanes) {
    vfloat before = load(queries->most + t), most = before;
    for (uint32_t j = 0; j < keys; j++) most = maximum(most, load(scores + j * query_tile + t));
    vfloat factor = exp_v(before - most), total = load(queries->total + t) * factor;
    for (uint32_t j = 0; j < keys; j++) {
      vfloat weight = exp_v(load(scores + j * query_tile + t) - most);
      store(scores + j * query_tile + t, weight);
      total += weight;
    }
    store(queries->most + t, most);
    store(queries->total + t, total);
    store(kept + t, factor);
  }
}

static inline void scale_row(float* row, float factor, uint32_t size) {
  for (uint32_t c = 0; c < size; c++) row[c] *= factor;
}

// out[t] = attention of query[t] over all tokens up to t.
//   address: query, key, value [tokens, width], out [tokens, width]
//   state: count [heads], keys, values [capacity * width]; attribute: heads, capacity
static void attention_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  _Alignas(64) struct queries queries;
  _Alignas(64) float scores[key_block * query_tile], kept[query_tile];
  struct range units = share_of(pass->segment_count * record->attribute[0].count, 1, thread, pass->thread_count);
  for (uint32_t unit = units.begin; unit < units.end; unit++) {
    struct head head = head_at(pass, record, unit);
    uint32_t width = head.width, size = head.size, cached = head.cached, count = head.segment->count;
    for (uint32_t first = 0; first < count; first += query_tile) {
      take_queries(&queries, &head, floats(record->address[0]) + head.first, first);
      float* out = floats(record->address[3]) + head.first + (uint64_t)first * width;
      for (uint32_t t = 0; t < queries.count; t++) {
        for (uint32_t c = 0; c < size; c++) out[(uint64_t)t * width + c] = 0;
      }
      uint32_t end = cached + first + queries.count;
      for (uint32_t from = 0, keys; from < end; from += keys) {
        keys = keys_from(&head, from, end);
        score(&queries, &head, from, keys, scores);
        add_scores(&queries, scores, keys, kept);
        for (uint32_t t = 0; t < queries.count; t++) {
          if (kept[t] != 1) scale_row(out + (uint64_t)t * width, kept[t], size);
        }
        add_tile_product(out, width, (struct tile){scores, 1, query_tile}, value_of(&head, from), width, queries.count, keys,
                         size);
      }
      for (uint32_t t = 0; t < queries.count; t++) scale_row(out + (uint64_t)t * width, 1 / queries.total[t], size);
    }
    // What does not fit is forgotten; whoever runs passes keeps to the capacity.
    float* next = floats(head.segment->next_state);
    uint32_t end = cached + count < record->attribute[1].count ? cached + count : record->attribute[1].count;
    for (uint32_t i = next == floats(head.segment->state) ? cached : 0; i < end; i++) {
      for (uint32_t c = 0; c < size; c++) {
        next[record->state[1] + (uint64_t)i * width + head.number * size + c] = key_of(&head, i)[c];
        next[record->state[2] + (uint64_t)i * width + head.number * size + c] = value_of(&head, i)[c];
      }
    }
    next[record->state[0] + head.number] = (float)end;
  }
}

// The gradient of attention_forward for the query, key and value of these tokens; those in the state are taken as they are. With
// p the softmax and s the scores: ds = p (dout . value - dout . out), dquery = scale ds keys, dkey = scale ds query, dvalue = p
// dout.
//   address: query, key, value, out, dout [tokens, width]; then dquery, dkey, dvalue [tokens, width]
//   state and attribute as above
static void attention_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  _Alignas(64) struct queries queries;
  _Alignas(64) float gradients[widest_head * query_tile];  // of the tile's results, transposed
  _Alignas(64) float weights[key_block * query_tile], dscores[key_block * query_tile], products[query_tile];
  struct range units = share_of(pass->segment_count * record->attribute[0].count, 1, thread, pass->thread_count);
  for (uint32_t unit = units.begin; unit < units.end; unit++) {
    struct head head = head_at(pass, record, unit);
    uint32_t width = head.width, size = head.size, cached = head.cached, count = head.segment->count;
    for (int which = 5; which < 8; which++) {
      float* rows = floats(record->address[which]) + head.first;
      for (uint32_t t = 0; t < count; t++) {
        for (uint32_t c = 0; c < size; c++) rows[(uint64_t)t * width + c] = 0;
      }
    }
    for (uint32_t first = 0; first < count; first += query_tile) {
      uint64_t at = head.first + (uint64_t)first * width;
      const float* dout = floats(record->address[4]) + at;
      take_queries(&queries, &head, floats(record->address[0]) + head.first, first);
      transpose_rows(dout, width, queries.count, size, 1, gradients);
      for (uint32_t t = 0; t < query_tile; t++) {
        uint64_t row = (uint64_t)t * width;
        products[t] = t < queries.count ? dot_product(dout + row, floats(record->address[3]) + at + row, size) : 0;
      }
      uint32_t end = cached + first + queries.count;
      for (uint32_t from = 0, keys; from < end; from += keys) {
        keys = keys_from(&head, from, end);
        score(&queries, &head, from, keys, weights);
        add_scores(&queries, weights, keys, dscores);
      }
      for (uint32_t from = 0, keys; from < end; from += keys) {
        keys = keys_from(&head, from, end);
        score(&queries, &head, from, keys, weights);
        for (uint32_t i = 0; i < keys * query_tile; i++) dscores[i] = 0;
        add_tile_product(dscores, query_tile, (struct tile){value_of(&head, from), width, 1}, gradients, query_tile, keys, size,
                         queries.columns);
        for (uint32_t t = 0; t < queries.columns; t += lanes) {
          vfloat most = load(queries.most + t), share = 1 / load(queries.total + t);
          for (uint32_t j = 0; j < keys; j++) {
            float *weight = weights + j * query_tile + t, *dscore = dscores + j * query_tile + t;
            store(weight, exp_v(load(weight) - most) * share);
            store(dscore, head.scale * load(weight) * (load(dscore) - load(products + t)));
          }
        }
        add_tile_product(floats(record->address[5]) + at, width, (struct tile){dscores, 1, query_tile}, key_of(&head, from),
                         width, queries.count, keys, size);
        if (from < cached) continue;
        uint64_t earlier = head.first + (uint64_t)(from - cached) * width;
        add_tile_product(floats(record->address[6]) + earlier, width, (struct tile){dscores, query_tile, 1},
                         floats(record->address[0]) + at, width, keys, queries.count, size);
        add_tile_product(floats(record->address[7]) + earlier, width, (struct tile){weights, query_tile, 1}, dout, width, keys,
                         queries.count, size);
      }
    }
  }
}
