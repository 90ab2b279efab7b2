// Products with weights in float32, binary16 or bfloat16, of any number of rows of x: one when a sequence decodes, a
// few when several do, many in prompts. All have the same order of additions, so that a row's result does not depend
// on its company:
//
//   The inputs are cut into blocks of `summed_inputs`. Within a block a vector of sums takes the products of a vector
//   of weights and one of x after the other; then its lanes are added; then the blocks. For bfloat16 the vectors of a
//   unit (two vectors) are its even and its odd elements, which one load of weights gives by a shift and a mask.
//
// Many rows are in matmul_strips.c. For few the work is cut into tiles of a few outputs by a strip of a few rows, whose
// sums stay in registers: a vector of weights serves every row of the tile, a vector of x every output. Their weights
// are taken where they are stored. One strip waits for memory, so it reads weights in streams which the processor can
// fetch independently, and asks for them some way ahead; several strips wait for arithmetic more than for memory, and
// each asks for a portion of the weights that the next tile takes.

#include "load_weights.h"
#include "matmul.h"

enum { summed_inputs = 1024, unit_inputs = 2 * lanes };

// Tiles that fit into the registers: sums, and vectors of x and of weights; bfloat16 needs a mask besides. Up to
// `single_rows` rows are one strip, whose tiles have the fewer outputs the more rows there are; more are several
// strips of up to `strip_rows` each, nearly as high as each other, since in one of a single row most registers would
// be idle.
enum { tile_outputs = 4 };
struct tile_shape {
  uint32_t single_rows;
  uint8_t single_outputs[6];  // by rows, less one
  uint32_t strip_rows, strip_outputs;
};

// Shapes by type, in the order of enum dtype, and the tiles that they need; remaining outputs are computed singly.
#if LANES >= 8
#define EACH_SINGLE(TILE) TILE(1, 1) TILE(1, 2) TILE(1, 3) TILE(1, 4) TILE(1, 5) TILE(1, 6)
#else
#define EACH_SINGLE(TILE) TILE(1, 1) TILE(1, 2) TILE(1, 3) TILE(1, 4)
#endif
#if LANES == 16
enum { tile_rows = 6 };
static const struct tile_shape shapes[] = {
    {6, {4, 4, 4, 4, 4, 4}, 6, 4}, {6, {4, 4, 4, 4, 4, 4}, 6, 4}, {5, {4, 4, 4, 4, 4}, 5, 4}};
#define EACH_TILE(TILE) TILE(4, 1) TILE(4, 2) TILE(4, 3) TILE(4, 4) TILE(4, 5) TILE(4, 6)
#elif LANES == 8
enum { tile_rows = 6 };
static const struct tile_shape shapes[] = {{3, {4, 4, 4}, 3, 4}, {3, {4, 4, 4}, 3, 4}, {6, {4, 4, 3, 2, 2, 2}, 4, 2}};
#define EACH_TILE(TILE) TILE(4, 1) TILE(4, 2) TILE(4, 3) TILE(3, 3) TILE(2, 3) TILE(2, 4) TILE(2, 5) TILE(2, 6)
#else
enum { tile_rows = 4 };
static const struct tile_shape shapes[] = {{4, {4, 4, 2, 2}, 4, 2}, {4, {4, 4, 2, 2}, 4, 2}, {4, {4, 4, 2, 2}, 4, 2}};
#define EACH_TILE(TILE) TILE(4, 1) TILE(4, 2) TILE(2, 2) TILE(2, 3) TILE(2, 4)
#endif

// From how many rows on filling panels pays: where weights are converted by that, it is sooner.
enum { many_rows_from = 9, many_float32_rows_from = 24 };

// How far ahead of a single strip weights are asked for, in bytes: found by trying, on Zen 5 with AVX-512, on Zen 1
// and 3 with AVX2.
#if LANES == 16
enum { stream_distance = 2048 };
#else
enum { stream_distance = 512 };
#endif

// Of x as many inputs are packed at a time as fit; of several rows so many that they do not leave the nearest caches.
enum { packed_floats = 32768, cached_floats = 8192, most_strips = many_float32_rows_from };

_Static_assert(many_float32_rows_from * summed_inputs <= packed_floats, "a block of inputs of few rows fits");

// One of the two vectors of a unit.
static inline __attribute__((always_inline)) vfloat load_half_unit(const void* weights, uint32_t dtype, uint32_t half) {
  if (dtype == DTYPE_BF16) {
    vuint both = (vuint)load((const float*)weights);
    return (vfloat)(half == 0 ? both << 16 : both & 0xffff0000);
  }
#if defined(__wasm__)
  // Its engines have no instruction for it, and weights that are not finite are kept from it (src/backends/kernel/matrices.ts).
  if (dtype == DTYPE_F16) return load_finite_f16((const uint16_t*)weights + half * lanes);
#endif
  return load_weights(weights, dtype, half * lanes);
}

#if LANES == 16
#define EVERY_SECOND(a, b, k)                                                                                          \
  SHUFFLE(a, b, k, k + 2, k + 4, k + 6, k + 8, k + 10, k + 12, k + 14, k + 16, k + 18, k + 20, k + 22, k + 24, k + 26, \
          k + 28, k + 30)
#elif LANES == 8
#define EVERY_SECOND(a, b, k) SHUFFLE(a, b, k, k + 2, k + 4, k + 6, k + 8, k + 10, k + 12, k + 14)
#else
#define EVERY_SECOND(a, b, k) SHUFFLE(a, b, k, k + 2, k + 4, k + 6)
#endif

// `count` elements of a row of x in the order of units, zeros up to a whole one. Rows of a strip lie side by side, a
// unit of each after the other.
static void pack_x(const float* x, uint32_t count, uint32_t dtype, uint32_t rows, float* packed) {
  for (uint32_t i = 0; i < count; i += unit_inputs, packed += rows * unit_inputs) {
    float last[unit_inputs] = {0};
    const float* from = x + i;
    if (count - i < unit_inputs) {
      __builtin_memcpy(last, from, 4 * (count - i));
      from = last;
    }
    vfloat first = load(from), second = load(from + lanes);
    store(packed, dtype == DTYPE_BF16 ? EVERY_SECOND(first, second, 0) : first);
    store(packed + lanes, dtype == DTYPE_BF16 ? EVERY_SECOND(first, second, 1) : second);
  }
}

// Weights of the outputs of a tile, so many bytes apart.
struct tile_weights {
  const uint8_t* at;
  uint64_t apart;
};

// Weights to ask for: a line of each output for every line that is taken, `step` bytes after the one before; from
// `end` on it continues at `next`.
struct ahead {
  const uint8_t *at, *end, *next;
  uint64_t apart;
  uint32_t step;
};

// Where results go: so many floats from row to row and from output to output. They are added to what is there unless
// they are the first.
struct tile_out {
  float* at;
  uint64_t row, apart;
  int first;
};

typedef vfloat tile_sums[tile_rows][tile_outputs];

// What is used several times: GCC would rather load it as often where it thinks that registers run out.
static inline __attribute__((always_inline)) vfloat kept(vfloat value) {
#if LANES == 8 && defined(__AVX2__)
  __asm__ volatile("" : "+x"(value));
#endif
  return value;
}

// Of x and of weights the fewer vectors are held, the others come one at a time.
static inline __attribute__((always_inline)) void add_unit(const uint8_t* weights, uint64_t apart, uint32_t dtype,
                                                           const float* x, uint32_t outputs, uint32_t rows,
                                                           tile_sums sums) {
  for (uint32_t half = 0; half < 2; half++) {
    if (rows <= outputs) {
      vfloat value[tile_rows];
      for (uint32_t r = 0; r < rows; r++) value[r] = kept(load(x + r * unit_inputs + half * lanes));
      for (uint32_t o = 0; o < outputs; o++) {
        vfloat weight = load_half_unit(weights + o * apart, dtype, half);
        for (uint32_t r = 0; r < rows; r++) sums[r][o] = multiply_add(weight, value[r], sums[r][o]);
      }
    } else {
      vfloat weight[tile_outputs];
      for (uint32_t o = 0; o < outputs; o++) weight[o] = kept(load_half_unit(weights + o * apart, dtype, half));
      for (uint32_t r = 0; r < rows; r++) {
        vfloat value = kept(load(x + r * unit_inputs + half * lanes));
        for (uint32_t o = 0; o < outputs; o++) sums[r][o] = multiply_add(weight[o], value, sums[r][o]);
      }
    }
  }
}

// Type, outputs and rows are constants where this is used, so that the loops over them are unrolled.
static inline __attribute__((always_inline)) void multiply_tile(struct tile_weights weights, uint32_t dtype,
                                                                struct ahead ahead, const float* x, uint32_t count,
                                                                struct tile_out out, uint32_t outputs, uint32_t rows) {
  const uint32_t element = dtype == DTYPE_F32 ? 4 : 2, line = 64 / element;
  const uint32_t step = unit_inputs > line ? unit_inputs : line;
  for (uint32_t begin = 0; begin < count; begin += summed_inputs, out.first = 0) {
    uint32_t left = count - begin < summed_inputs ? count - begin : summed_inputs;
    tile_sums sums = {0};
    for (; left >= step; left -= step) {
      for (uint32_t i = 0; i < step; i += line) {
        for (uint32_t o = 0; o < outputs; o++) __builtin_prefetch(ahead.at + o * ahead.apart);
        ahead.at = ahead.at + ahead.step == ahead.end ? ahead.next : ahead.at + ahead.step;
      }
      for (uint32_t i = 0; i < step; i += unit_inputs, weights.at += unit_inputs * element, x += rows * unit_inputs) {
        add_unit(weights.at, weights.apart, dtype, x, outputs, rows, sums);
      }
    }
    for (; left >= unit_inputs; left -= unit_inputs, weights.at += unit_inputs * element, x += rows * unit_inputs) {
      add_unit(weights.at, weights.apart, dtype, x, outputs, rows, sums);
    }
    if (left > 0) {
      uint8_t last[tile_outputs][unit_inputs * 4] = {0};
      for (uint32_t o = 0; o < outputs; o++) __builtin_memcpy(last[o], weights.at + o * weights.apart, left * element);
      add_unit(last[0], sizeof last[0], dtype, x, outputs, rows, sums);
    }
    for (uint32_t r = 0; r < rows; r++) {
      float total[tile_outputs];
      for (uint32_t o = outputs; o < tile_outputs; o++) sums[r][o] = splat(0);
      sums_of_four(sums[r], total);
      float* to = out.at + r * out.row;
      for (uint32_t o = 0; o < outputs; o++) to[o * out.apart] = out.first ? total[o] : to[o * out.apart] + total[o];
    }
  }
}

typedef void tile_function(struct tile_weights weights, struct ahead ahead, const float* x, uint32_t count,
                           struct tile_out out);

#define DEFINE_TILE(name, dtype, outputs, rows)                                                          \
  static void name##_##outputs##x##rows(struct tile_weights weights, struct ahead ahead, const float* x, \
                                        uint32_t count, struct tile_out out) {                           \
    multiply_tile(weights, dtype, ahead, x, count, out, outputs, rows);                                  \
  }
#define DEFINE_TILES(outputs, rows)                \
  DEFINE_TILE(tile_f32, DTYPE_F32, outputs, rows) \
  DEFINE_TILE(tile_f16, DTYPE_F16, outputs, rows) \
  DEFINE_TILE(tile_bf16, DTYPE_BF16, outputs, rows)
EACH_TILE(DEFINE_TILES)
EACH_SINGLE(DEFINE_TILES)

// By type, as enum dtype numbers them, and by outputs and rows, less one.
#define F32(outputs, rows) [outputs - 1][rows - 1] = tile_f32_##outputs##x##rows,
#define F16(outputs, rows) [outputs - 1][rows - 1] = tile_f16_##outputs##x##rows,
#define BF16(outputs, rows) [outputs - 1][rows - 1] = tile_bf16_##outputs##x##rows,
static tile_function* const tile_functions[3][tile_outputs][tile_rows] = {
    {EACH_TILE(F32) EACH_SINGLE(F32)}, {EACH_TILE(F16) EACH_SINGLE(F16)}, {EACH_TILE(BF16) EACH_SINGLE(BF16)}};

// A strip of rows: where it begins in x and in the weights that its tiles ask for.
struct strip {
  uint32_t begin, rows;
  uint32_t asked;
};

// Few rows of a product, and a part of its inputs.
struct batch {
  uint32_t dtype;
  uint32_t strips;
  uint32_t step;            // of what several strips ask for, for every line that they take
  uint32_t inputs, padded;  // of the part; of a packed row
  const float* packed;
  struct strip strip[most_strips];
};

// A tile of outputs by all rows. After its weights those of the next tile are to be asked for.
static void multiply_tiles(const struct batch* batch, struct tile_weights weights, const uint8_t* next,
                           uint32_t outputs, struct tile_out out) {
  const uint32_t strips = batch->strips, bytes = batch->inputs * element_size(batch->dtype);
  struct ahead ahead = {weights.at + stream_distance, weights.at + bytes, next, weights.apart, 64};
  if (strips > 1) {
    ahead.end = 0;
    ahead.step = batch->step;
  } else if (bytes <= stream_distance || bytes % 64 != 0) {
    ahead.at = next;
    ahead.end = 0;
  }
  for (uint32_t s = 0; s < strips; s++) {
    const struct strip* strip = &batch->strip[s];
    if (strips > 1) ahead.at = next + strip->asked;
    struct tile_out to = out;
    to.at += strip->begin * out.row;
    const float* x = batch->packed + strip->begin * batch->padded;
    tile_functions[batch->dtype][outputs - 1][strip->rows - 1](weights, ahead, x, batch->inputs, to);
  }
}

static __attribute__((noinline)) void multiply_few(const struct record* record, struct range outputs,
                                                   struct range all) {
  _Alignas(64) float packed[packed_floats];
  const uint32_t inputs = record->inputs, dtype = record->dtype, count = outputs.end - outputs.begin;
  const uint32_t rows = all.end - all.begin;
  const uint64_t element = element_size(dtype), weight_row = inputs * element;
  const struct tile_shape* shape = &shapes[dtype];
  const uint32_t strips = rows <= shape->single_rows ? 1 : (rows + shape->strip_rows - 1) / shape->strip_rows;
  const uint32_t tile = strips == 1 ? shape->single_outputs[rows - 1] : shape->strip_outputs;
  // A tile has distant outputs, and the next one their neighbours: streams that the processor fetches independently.
  const uint32_t tiles = count / tile;
  const uint64_t apart = tiles * weight_row;
  uint32_t part = (rows == 1 ? packed_floats : cached_floats) / rows;
  part = part < summed_inputs ? summed_inputs : part / summed_inputs * summed_inputs;
  if (part > inputs) part = (inputs + unit_inputs - 1) / unit_inputs * unit_inputs;
  struct batch batch = {.dtype = dtype, .strips = strips, .step = (64 + strips - 1) / strips, .packed = packed};
  for (uint32_t begin = 0; begin < inputs; begin += part) {
    batch.inputs = inputs - begin < part ? inputs - begin : part;
    batch.padded = (batch.inputs + unit_inputs - 1) / unit_inputs * unit_inputs;
    for (uint32_t s = 0, t = 0; s < strips; s++) {
      // Strips are nearly as high as each other.
      const uint32_t end = rows * (s + 1) / strips;
      batch.strip[s] = (struct strip){t, end - t, batch.inputs * element * s / strips};
      for (uint32_t r = t; r < end; r++) {
        const float* x = floats(record->address[0]) + (uint64_t)(all.begin + r) * inputs + begin;
        pack_x(x, batch.inputs, dtype, end - t, packed + t * batch.padded + (r - t) * unit_inputs);
      }
      t = end;
    }
    const uint8_t* matrix =
        (const uint8_t*)(uintptr_t)record->address[1] + outputs.begin * weight_row + begin * element;
    struct tile_out out = {floats(record->address[4]) + (uint64_t)all.begin * record->width + outputs.begin,
                           record->width, tiles, begin == 0};
    for (uint32_t i = 0; i < tiles; i++, out.at++) {
      const uint8_t* weights = matrix + i * weight_row;
      // After the last tile comes the first one of the next part.
      const uint8_t* next = i + 1 < tiles ? weights + weight_row : matrix + batch.inputs * element;
      multiply_tiles(&batch, (struct tile_weights){weights, apart}, next, tile, out);
    }
    out.at += (tile - 1) * tiles;
    for (uint32_t o = tile * tiles; o < count; o++, out.at++) {
      const uint8_t* weights = matrix + o * weight_row;
      multiply_tiles(&batch, (struct tile_weights){weights, 0}, weights, 1, out);
    }
  }
}
