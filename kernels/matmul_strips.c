// Products of many rows with weights in float32, binary16 or bfloat16, in the order of additions of matmul_floats.c:
// bound by arithmetic. A block of x lies in the second level cache, packed in strips of a few rows. The weights of four
// outputs and as many inputs go to a panel of float32 in the first, in the order in which they are taken, so that they
// are converted once for all strips. A strip takes as many rows as have their sums in registers, with four outputs
// each.

#include "load_weights.h"
#include "matmul.h"

#if LANES == 16
enum { strip_rows = 6 };  // 24 sums, 6 vectors of x and one of weights in 32 registers
#elif LANES == 8
enum { strip_rows = 3 };  // 12 sums, 3 vectors of x and one of weights in 16 registers
#else
enum { strip_rows = 2 };  // without multiply-add products need a register, and WebAssembly's engines keep some
#endif
enum { panel_outputs = 4 };

// Rows of x that are packed at a time: a block of inputs of theirs has 256 KiB, in WebAssembly, whose stack is small,
// half of that.
#if defined(__wasm__)
enum { block_rows = 32 };
#else
enum { block_rows = 64 };
#endif

// Results of as many outputs as have a cache line are kept for all rows before they go to where they belong: rows
// there may be a power of two apart, for whose multiples caches have few places.
enum { kept_outputs = 16 };

_Static_assert((int)many_rows_from > (int)strip_rows, "rows are at least two strips");

// Weights to ask for, those of the next panel: a strip asks for a part of one output's, `step` bytes after each other.
struct panel_ahead {
  const uint8_t* at;
  uint64_t apart, part;
  uint32_t step;
};

// Strips of the same height from number `first` on; results of a row are kept_outputs after those of the row before.
struct panel_strips {
  const float* x;
  float* results;
  uint32_t first, count;
};

// The height is a constant where this is used, so that the loops over it are unrolled.
static inline __attribute__((always_inline)) void multiply_strips_of(uint32_t rows, struct panel_strips strips,
                                                                     const float* panel, uint32_t units,
                                                                     const struct panel_ahead* ahead) {
  const float* x = strips.x;
  float* results = strips.results;
  for (uint32_t strip = strips.first; strip < strips.first + strips.count; strip++) {
    const uint8_t* ask = ahead->at + strip % panel_outputs * ahead->apart + strip / panel_outputs * ahead->part;
    const float* weights = panel;
    vfloat sums[strip_rows][panel_outputs] = {0};
    for (uint32_t u = 0; u < units; u++, ask += ahead->step) {
      __builtin_prefetch(ask, 0, 2);
      for (uint32_t half = 0; half < 2; half++) {
        vfloat value[strip_rows];
        for (uint32_t r = 0; r < rows; r++) value[r] = kept(load(x + r * unit_inputs + half * lanes));
        for (uint32_t o = 0; o < panel_outputs; o++) {
          vfloat weight = load(weights + o * unit_inputs + half * lanes);
          for (uint32_t r = 0; r < rows; r++) sums[r][o] = multiply_add(weight, value[r], sums[r][o]);
        }
      }
      weights += panel_outputs * unit_inputs;
      x += rows * unit_inputs;
    }
    for (uint32_t r = 0; r < rows; r++, results += kept_outputs) sums_of_four(sums[r], results);
  }
}

typedef void strips_function(struct panel_strips strips, const float* panel, uint32_t units,
                             const struct panel_ahead* ahead);

#define DEFINE_STRIPS(rows)                                                                                \
  static __attribute__((noinline)) void strips_of_##rows(struct panel_strips strips, const float* panel,   \
                                                         uint32_t units, const struct panel_ahead* ahead) { \
    multiply_strips_of(rows, strips, panel, units, ahead);                                                 \
  }
DEFINE_STRIPS(1)
DEFINE_STRIPS(2)
#if LANES >= 8
DEFINE_STRIPS(3)
#endif
#if LANES == 16
DEFINE_STRIPS(4)
DEFINE_STRIPS(5)
DEFINE_STRIPS(6)
#endif

// By their height, less one.
static strips_function* const strips_functions[strip_rows] = {
    strips_of_1, strips_of_2,
#if LANES >= 8
    strips_of_3,
#endif
#if LANES == 16
    strips_of_4, strips_of_5, strips_of_6,
#endif
};

// Units of the weights of some outputs, which are `apart` bytes apart, one output after the other.
static inline __attribute__((always_inline)) void fill_strips_panel(const uint8_t* weights, uint64_t apart,
                                                                    uint32_t dtype, uint32_t outputs, uint32_t count,
                                                                    float* panel) {
  const uint32_t element = element_size(dtype);
  for (uint32_t o = 0; o < outputs; o++, weights += apart, panel += unit_inputs) {
    float* to = panel;
    uint32_t left = count;
    const uint8_t* from = weights;
    for (; left >= unit_inputs; left -= unit_inputs, from += unit_inputs * element, to += panel_outputs * unit_inputs) {
      for (uint32_t half = 0; half < 2; half++) store(to + half * lanes, load_half_unit(from, dtype, half));
    }
    if (left == 0) continue;
    uint8_t last[unit_inputs * 4] = {0};
    __builtin_memcpy(last, from, left * element);
    for (uint32_t half = 0; half < 2; half++) store(to + half * lanes, load_half_unit(last, dtype, half));
  }
}

// Adds the kept results of `count` outputs to what is there, or puts them there where they are the first.
static void put_results(const float* results, uint32_t rows, float* out, uint64_t width, uint32_t count, int first) {
  for (uint32_t r = 0; r < rows; r++, results += kept_outputs, out += width) {
    for (uint32_t i = 0; i < count; i += lanes) {
      vfloat value = load(results + i);
      store_up_to(out + i, first ? value : load_up_to(out + i, count - i) + value, count - i);
    }
  }
}

// From many_rows_from to block_rows rows, a block of inputs.
static void multiply_block(const struct record* record, struct range outputs, uint32_t row, uint32_t rows,
                           uint32_t begin) {
  _Alignas(64) float packed[block_rows * summed_inputs], panel[panel_outputs * summed_inputs];
  _Alignas(64) float results[block_rows * kept_outputs];
  const uint32_t inputs = record->inputs, dtype = record->dtype, element = element_size(dtype);
  const uint32_t count = inputs - begin < summed_inputs ? inputs - begin : summed_inputs;
  const uint32_t units = (count + unit_inputs - 1) / unit_inputs, padded = units * unit_inputs;
  // Strips of nearly the same height: first the higher ones.
  const uint32_t strips = (rows + strip_rows - 1) / strip_rows, low = rows / strips, higher = rows % strips;
  const struct panel_strips high_strips = {packed, results, 0, higher};
  const struct panel_strips low_strips = {packed + higher * (low + 1) * padded,
                                          results + higher * (low + 1) * kept_outputs, higher, strips - higher};
  const float* x = floats(record->address[0]) + (uint64_t)row * inputs + begin;
  float* strip = packed;
  for (uint32_t s = 0; s < strips; s++) {
    const uint32_t height = s < higher ? low + 1 : low;
    for (uint32_t r = 0; r < height; r++, x += inputs) pack_x(x, count, dtype, height, strip + r * unit_inputs);
    strip += height * padded;
  }
  const uint64_t weight_row = (uint64_t)inputs * element;
  const uint8_t* matrix = (const uint8_t*)(uintptr_t)record->address[1] + (uint64_t)begin * element;
  float* out = floats(record->address[4]) + (uint64_t)row * record->width;
  struct panel_ahead ahead = {.apart = weight_row,
                              .part = count * element / ((strips + panel_outputs - 1) / panel_outputs)};
  ahead.step = (ahead.part + units - 1) / units;
  for (uint32_t o = outputs.begin; o < outputs.end; o += panel_outputs) {
    const uint32_t left = outputs.end - o, taken = left < panel_outputs ? left : panel_outputs;
    const uint8_t* weights = matrix + o * weight_row;
    if (dtype == DTYPE_F32) fill_strips_panel(weights, weight_row, DTYPE_F32, taken, count, panel);
    else if (dtype == DTYPE_BF16) fill_strips_panel(weights, weight_row, DTYPE_BF16, taken, count, panel);
    else fill_strips_panel(weights, weight_row, DTYPE_F16, taken, count, panel);
    ahead.at = weights + panel_outputs * weight_row;
    const uint32_t kept_before = (o - outputs.begin) % kept_outputs;
    struct panel_strips some = high_strips;
    some.results += kept_before;
    if (some.count > 0) strips_functions[low](some, panel, units, &ahead);
    some = low_strips;
    some.results += kept_before;
    strips_functions[low - 1](some, panel, units, &ahead);
    const uint32_t all = kept_before + taken;
    if (all == kept_outputs || taken == left) {
      put_results(results, rows, out + o - kept_before, record->width, all, begin == 0);
    }
  }
}

// At least many_rows_from rows, a few dozen at a time, nearly as many each time.
static void multiply_many(const struct record* record, struct range outputs, struct range rows) {
  const uint32_t all = rows.end - rows.begin, parts = (all + block_rows - 1) / block_rows;
  for (uint32_t p = 0; p < parts; p++) {
    const uint32_t begin = (uint64_t)all * p / parts, end = (uint64_t)all * (p + 1) / parts;
    for (uint32_t i = 0; i < record->inputs; i += summed_inputs) {
      multiply_block(record, outputs, rows.begin + begin, end - begin, i);
    }
  }
}
