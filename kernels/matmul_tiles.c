// Products of many rows with quantized weights by tiles (tiles.h): the sums of products of bytes, which are the same integers as
// anywhere, and so all results have the same bits. The weights of a block of inputs, with what they are scaled by, are a unit; those of
// a part of the inputs are laid out once for all rows. Not of Q6_K, whose blocks of 16 inputs would leave most of a tile empty.

#include "matmul.h"
#include "quantized.h"
#include "super_blocks.h"
#include "tiles.h"

// From how many rows on it pays.
enum { tiles_from = 16 };

#if HAS_TILES

// A strip of rows of x are those of a tile. What is needed of so many rows besides their bytes is gathered once for all outputs.
enum { rows_of_tile = 16, gathered_rows = 128 };

// Units of a panel, which with a strip of x stays in the first level cache.
enum { panel_units = 32 };

typedef int8_t unit_bytes[block_inputs / 4][group_outputs][4];

struct weight_unit {
  const int8_t* bytes;
  _Alignas(64) float scale[group_outputs];
  float least[group_outputs];
};

// Of each unit and row the scale of x, and the sum of its block, for types with least values.
struct gathered_x {
  float scale[panel_units][gathered_rows], sum[panel_units][gathered_rows];
};

typedef int8_t vbytes __attribute__((vector_size(4 * LANES)));

static void store_vector(void* to, vint vector) { __builtin_memcpy(to, &vector, sizeof vector); }

// Two units. Bytes of Q8_0 are taken where they lie.
static void lay_out_pair(const uint8_t* pair, uint32_t dtype, struct weight_unit* unit, unit_bytes* bytes) {
  const struct q8_pair* q8 = (const struct q8_pair*)pair;
  const struct q4_pair* q4 = (const struct q4_pair*)pair;
  for (uint32_t b = 0; b < 2; b++) {
    unit[b].bytes = dtype == DTYPE_Q8 ? q8->quant[b][0][0] : bytes[b][0][0];
    store(unit[b].scale, load_f16(q8->scale[b]));  // q4 begins alike
    if (dtype == DTYPE_Q8) continue;
    for (uint32_t k = 0; k < 4; k++) {
      vint both = load_int(q4->quant[b][k]);
      store_vector(bytes[b][k], (vint)((vbytes)(both & 0x0f0f0f0f) - 8));
      store_vector(bytes[b][k + 4], (vint)((vbytes)((both >> 4) & 0x0f0f0f0f) - 8));
    }
  }
}

// Eight units, of Q4_K or Q5_K.
static void lay_out_super(const uint8_t* super, uint32_t dtype, struct weight_unit* unit, unit_bytes* bytes) {
  const struct q4k_super* head = (const struct q4k_super*)super;  // q5k begins alike
  for (uint32_t part = 0; part < parts_of_super; part++, unit++) {
    part_weights w;
    unpack_part(super, dtype, part, 0, w);
    for (uint32_t k = 0; k < 8; k++) store_vector(bytes[part][k], w[k]);
    struct packed_scales packed = scales_of_four(head->packed, 0, part);
    const uint32_t shift = 8 * (part % 4);
    unit->bytes = bytes[part][0][0];
    store(unit->scale, load_f16(head->scale[0]) * to_floats((packed.scales >> shift) & 255));
    store(unit->least, -load_f16(head->scale[1]) * to_floats((packed.leasts >> shift) & 255));
  }
}

// Units from `unit` on.
static void gather_x(const int8_t* x, uint32_t pairs, uint32_t rows, uint32_t unit, uint32_t units, struct gathered_x* gathered) {
  for (uint32_t r = 0; r < rows; r++, x += quantized_row_size(pairs)) {
    const float* scales = row_scales(x, pairs) + unit;
    for (uint32_t u = 0; u < units; u++) {
      gathered->scale[u][r] = scales[u];
      gathered->sum[u][r] = scales[u] * (float)block_sum(x, pairs, unit + u);
    }
  }
}

// What is needed of a strip of x: the scales and sums of its first row and first unit, `gathered_rows` from unit to unit.
struct strip_of_x {
  const int8_t* quant;
  uint64_t stride;  // from row to row, in bytes
  const float *scales, *sums;
};

// What one unit adds to the sums of a strip.
static inline __attribute__((always_inline)) void add_tile_totals(const struct weight_unit* unit, const int32_t* totals,
                                                                  struct strip_of_x x, int has_least, uint32_t height,
                                                                  vfloat* sums) {
  vfloat scale = load(unit->scale), least = load(unit->least);
#pragma GCC unroll 16
  for (uint32_t r = 0; r < height; r++) {
    vint total = load_int(totals + r * group_outputs);
    sums[r] = multiply_add(to_floats(total), scale * splat(x.scales[r]), sums[r]);
    if (has_least) sums[r] = multiply_add(least, splat(x.sums[r]), sums[r]);
  }
}

// A strip of rows by a group of outputs: sums += products of `units` units, which are even. Whether there are least values, and
// how many rows have sums, are constants where this is used.
static inline __attribute__((always_inline)) void multiply_strip(const struct weight_unit* panel, uint32_t units,
                                                                 struct strip_of_x x, int has_least, uint32_t height,
                                                                 float* kept) {
  _Alignas(64) int32_t totals[2][2][rows_of_tile * group_outputs];
  vfloat sums[rows_of_tile];
#pragma GCC unroll 16
  for (uint32_t r = 0; r < height; r++) sums[r] = load(kept + r * group_outputs);
  // Tiles are two units ahead of the sums, which so need not wait for them.
  for (uint32_t u = 0; u <= units; u += 2) {
    if (u < units) {
      first_tile_product(x.quant, x.stride, panel[u].bytes, totals[u / 2 % 2][0]);
      second_tile_product(x.quant + block_inputs, x.stride, panel[u + 1].bytes, totals[u / 2 % 2][1]);
      x.quant += pair_inputs;
    }
    if (u == 0) continue;
    for (uint32_t i = 0; i < 2; i++) {
      add_tile_totals(panel + u - 2 + i, totals[1 - u / 2 % 2][i], x, has_least, height, sums);
      x.scales += gathered_rows, x.sums += gathered_rows;
    }
  }
#pragma GCC unroll 16
  for (uint32_t r = 0; r < height; r++) store(kept + r * group_outputs, sums[r]);
}

typedef void strip_function(const struct weight_unit* panel, uint32_t units, struct strip_of_x x, float* kept);

#define DEFINE_STRIP(name, has_least, height)                                                                \
  NOT_INLINED void name(const struct weight_unit* panel, uint32_t units, struct strip_of_x x, float* kept) { \
    multiply_strip(panel, units, x, has_least, height, kept);                                                \
  }
DEFINE_STRIP(strip_of_8, 0, 8)
DEFINE_STRIP(strip_of_16, 0, 16)
DEFINE_STRIP(strip_with_leasts_of_8, 1, 8)
DEFINE_STRIP(strip_with_leasts_of_16, 1, 16)

// Of x and of sums `rows` rows.
static void set_sizes(uint32_t rows) {
  struct tile_sizes sizes = {.palette = 1};
  for (uint32_t i = 0; i < 6; i++) {
    sizes.rows[i] = i < 4 ? rows : block_inputs / 4;
    sizes.row_bytes[i] = i == 2 || i == 3 ? block_inputs : 4 * group_outputs;
  }
  set_tile_sizes(&sizes);
}

// `outputs` begins at a group.
static void multiply_quantized_by_tiles(const struct record* record, struct range outputs, uint32_t rows) {
  struct weight_unit panel[panel_units];
  _Alignas(64) unit_bytes bytes[panel_units];
  struct gathered_x gathered;
  _Alignas(64) float kept[rows_of_tile * group_outputs];
  const uint32_t dtype = record->dtype, pairs = pairs_of(record->inputs);
  const uint64_t stride = quantized_row_size(pairs), width = record->width;
  // What lies in memory together: two blocks, or a super-block.
  const int has_least = dtype >= DTYPE_Q4K;
  const uint32_t inputs = has_least ? super_inputs : pair_inputs, units_of_one = inputs / block_inputs;
  const uint32_t all = has_least ? record->inputs / super_inputs : pairs, most = panel_units / units_of_one;
  const uint64_t size = has_least ? super_size(dtype) : pair_size(dtype);
  const uint8_t* weights = (const uint8_t*)(uintptr_t)record->address[1];
  strip_function* const of_8 = has_least ? strip_with_leasts_of_8 : strip_of_8;
  strip_function* const of_16 = has_least ? strip_with_leasts_of_16 : strip_of_16;
  uint32_t height = 0;
  for (uint32_t first = 0; first < rows; first += gathered_rows) {
    const uint32_t some = rows - first < gathered_rows ? rows - first : gathered_rows;
    const int8_t* x = (const int8_t*)(uintptr_t)record->address[0] + first * stride;
    float* results = floats(record->address[4]) + first * width;
    for (uint32_t begin = 0, count; begin < all; begin += count) {
      count = all - begin < most ? all - begin : most;
      const uint32_t unit = begin * units_of_one, units = count * units_of_one;
      gather_x(x, pairs, some, unit, units, &gathered);
      for (uint32_t o = outputs.begin; o < outputs.end; o += group_outputs) {
        const uint8_t* from = weights + ((uint64_t)(o / group_outputs) * all + begin) * size;
        const uint32_t columns = record->width - o;
        for (uint32_t u = 0; u < units; u += units_of_one, from += size) {
          if (has_least) lay_out_super(from, dtype, panel + u, bytes + u);
          else lay_out_pair(from, dtype, panel + u, bytes + u);
        }
        for (uint32_t row = 0; row < some; row += rows_of_tile) {
          const uint32_t taken = some - row < rows_of_tile ? some - row : rows_of_tile;
          if (taken != height) set_sizes(height = taken);
          const int8_t* quant = x + row * stride + unit * block_inputs;
          struct strip_of_x strip = {quant, stride, gathered.scale[0] + row, gathered.sum[0] + row};
          float* out = results + row * width + o;
          for (uint32_t r = 0; r < taken; r++) {
            __builtin_prefetch(out + r * width, 1);
            store(kept + r * group_outputs, begin > 0 ? load_up_to(out + r * width, columns) : splat(0));
          }
          (taken > 8 ? of_16 : of_8)(panel, units, strip, kept);
          for (uint32_t r = 0; r < taken; r++) store_up_to(out + r * width, load(kept + r * group_outputs), columns);
        }
      }
    }
  }
  release_tiles();
}

#else

// No pass asks for it.
static void multiply_quantized_by_tiles(const struct record* record, struct range outputs, uint32_t rows) {
  (void)record, (void)outputs, (void)rows;
}

#endif
