// Products of rows of floats that are mostly zeros with matrices that lie input by input (by_input.h): the weights of an input
// whose value is zero are not read. The results are those of matmul_floats.c to the bit.
//
// There inputs are summed in blocks, in a vector whose lanes each take every so many-th input; here the sums of each lane are a
// row of all outputs, to which the weights of an input are added. A product with zero would change none of them. (A sum that
// underflowed to -0 it might make +0; and a weight that is not finite would give NaN, which shows here only where its input is not
// zero.)

#include "by_input.h"
#include "matmul.h"
#include "transpose.h"

// Rows of weights that are added together, as many streams.
enum { rows_at_once = 4 };

// The inputs of a block whose values are not zero, those of a lane from from[lane] on, in their order.
struct live_inputs {
  uint32_t from[lanes + 1];
  uint16_t input[summed_inputs];
};

static void find_live_inputs(const float* x, uint32_t count, uint32_t dtype, struct live_inputs* live) {
  // Which inputs a lane takes is said in matmul_floats.c.
  const uint32_t together = dtype == DTYPE_BF16 ? 2 : 1;
  uint16_t input[summed_inputs];
  uint32_t all = 0, next[lanes] = {0};
  for (uint32_t i = 0; i < count; i++) {
    uint32_t bits;
    __builtin_memcpy(&bits, x + i, 4);
    input[all] = (uint16_t)i;
    all += bits << 1 != 0;  // not 0, with any sign: sooner than comparing floats
  }
  for (uint32_t n = 0; n < all; n++) next[input[n] / together % lanes]++;
  live->from[0] = 0;
  for (uint32_t lane = 0; lane < lanes; lane++) {
    live->from[lane + 1] = live->from[lane] + next[lane];
    next[lane] = live->from[lane];
  }
  for (uint32_t n = 0; n < all; n++) live->input[next[input[n] / together % lanes]++] = input[n];
}

// sums += the weights of some inputs times their values, one after the other; rows of weights to be added later are asked for.
// Sums of bfloat16 are those of the even and of the odd outputs of a unit (matmul_floats.c). Type, rows, and whether they are
// the first, are constants where this is used.
static inline __attribute__((always_inline)) void add_input_rows(const uint8_t* const* weights, const uint8_t* const* next,
                                                                 const float* values, uint32_t rows, uint32_t dtype,
                                                                 uint32_t outputs, int first, float* sums) {
  const uint32_t line = line_bytes / (uint32_t)element_size(dtype), halves = dtype == DTYPE_BF16 ? 2 : 1;
  vfloat value[rows_at_once];
  for (uint32_t r = 0; r < rows; r++) value[r] = splat(values[r]);
  for (uint32_t o = 0; o < outputs; o += line) {
    for (uint32_t r = 0; r < rows_at_once; r++) __builtin_prefetch(next[r] + o * element_size(dtype), 0, 2);
    for (uint32_t k = o; k < o + line; k += halves * lanes) {
      for (uint32_t half = 0; half < halves; half++) {
        vfloat sum = first ? splat(0) : load(sums + k + half * lanes);
        for (uint32_t r = 0; r < rows; r++) {
          const vfloat weight = halves == 2 ? load_half_unit(weights[r] + 2 * k, dtype, half) : load_weights(weights[r], dtype, k);
          sum = multiply_add(weight, value[r], sum);
        }
        store(sums + k + half * lanes, sum);
      }
    }
  }
}

#define ADD_ROWS(rows)                                                               \
  case rows:                                                                         \
    if (first) add_input_rows(weights, next, values, rows, dtype, outputs, 1, sums); \
    else add_input_rows(weights, next, values, rows, dtype, outputs, 0, sums);       \
    break;

static inline __attribute__((always_inline)) void add_input_rows_of(const uint8_t* const* weights,
                                                                    const uint8_t* const* next, const float* values,
                                                                    uint32_t rows, uint32_t dtype, uint32_t outputs,
                                                                    int first, float* sums) {
  switch (rows) { ADD_ROWS(1) ADD_ROWS(2) ADD_ROWS(3) ADD_ROWS(4) }
}

// The sums of the lanes, from `at` of each row of sums on, added in the order of sums_of_four.
static inline vfloat sum_of_lanes(const float* sums) {
  vfloat lane[lanes];
  for (uint32_t i = 0; i < lanes; i++) lane[i] = load(sums + i * sparse_outputs);
#if LANES == 16 && defined(__AVX512F__)
  for (uint32_t i = 0; i < 8; i++) lane[i] += lane[i + 8];
#endif
#if (LANES == 16 && defined(__AVX512F__)) || (LANES == 8 && defined(__AVX2__))
  return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
#else
  // For four lanes, too, halves are added.
  for (uint32_t half = lanes / 2; half > 0; half /= 2) {
    for (uint32_t i = 0; i < half; i++) lane[i] += lane[i + half];
  }
  return lane[0];
#endif
}

// A block of inputs of one row of x. `outputs` are whole lines, sparse_outputs at most.
static inline __attribute__((always_inline)) void add_sparse_block(const uint8_t* weights, uint64_t row_size,
                                                                   uint32_t dtype, const float* x,
                                                                   const struct live_inputs* live, uint32_t outputs,
                                                                   int first, float* total) {
  _Alignas(64) float sums[lanes * sparse_outputs];
  const uint32_t all = live->from[lanes];
  for (uint32_t lane = 0; lane < lanes; lane++) {
    float* to = sums + lane * sparse_outputs;
    const uint32_t end = live->from[lane + 1];
    if (live->from[lane] == end) __builtin_memset(to, 0, outputs * 4);
    for (uint32_t n = live->from[lane]; n < end; n += rows_at_once) {
      const uint32_t rows = end - n < rows_at_once ? end - n : rows_at_once;
      const uint8_t *row[rows_at_once], *next[rows_at_once];
      float value[rows_at_once];
      for (uint32_t r = 0; r < rows; r++) {
        const uint32_t input = live->input[n + r];
        row[r] = weights + input * row_size;
        value[r] = x[input];
      }
      for (uint32_t r = 0; r < rows_at_once; r++) {
        const uint32_t after = n + rows + rows_at_once + r;
        next[r] = weights + live->input[after < all ? after : all - 1] * row_size;
      }
      add_input_rows_of(row, next, value, rows, dtype, outputs, n == live->from[lane], to);
    }
  }
  for (uint32_t o = 0; o < outputs; o += 2 * lanes) {
    // Sixteen outputs of float32 are one vector where that has sixteen lanes.
    const uint32_t vectors = outputs - o < 2 * lanes ? 1 : 2;
    vfloat sum[2];
    for (uint32_t v = 0; v < vectors; v++) sum[v] = sum_of_lanes(sums + o + v * lanes);
    if (dtype == DTYPE_BF16) {
      const vfloat even = sum[0], odd = sum[1];
      sum[0] = interleave_first(even, odd);
      sum[1] = interleave_second(even, odd);
    }
    for (uint32_t v = 0; v < vectors; v++) {
      float* to = total + o + v * lanes;
      store(to, first ? sum[v] : load(to) + sum[v]);
    }
  }
}

NOT_INLINED void add_sparse_f32(const uint8_t* weights, uint64_t row_size, const float* x, const struct live_inputs* live,
                                uint32_t outputs, int first, float* total) {
  add_sparse_block(weights, row_size, DTYPE_F32, x, live, outputs, first, total);
}
NOT_INLINED void add_sparse_f16(const uint8_t* weights, uint64_t row_size, const float* x, const struct live_inputs* live,
                                uint32_t outputs, int first, float* total) {
  add_sparse_block(weights, row_size, DTYPE_F16, x, live, outputs, first, total);
}
NOT_INLINED void add_sparse_bf16(const uint8_t* weights, uint64_t row_size, const float* x, const struct live_inputs* live,
                                 uint32_t outputs, int first, float* total) {
  add_sparse_block(weights, row_size, DTYPE_BF16, x, live, outputs, first, total);
}

// Rows of x of floats, one after the other; `outputs` begins at a line and has sparse_outputs at most.
static void multiply_sparse_floats(const struct record* record, const uint8_t* by_input, struct range outputs,
                                   uint32_t rows) {
  _Alignas(64) float totals[sparse_outputs];
  struct live_inputs live;
  const uint32_t inputs = record->inputs, dtype = record->dtype, count = outputs.end - outputs.begin;
  const uint32_t padded = padded_outputs(count, dtype);
  const uint64_t row_size = input_row_size(record->width, dtype);
  const uint8_t* matrix = by_input + outputs.begin * element_size(dtype);
  for (uint32_t t = 0; t < rows; t++) {
    const float* x = floats(record->address[0]) + (uint64_t)t * inputs;
    for (uint32_t begin = 0; begin < inputs; begin += summed_inputs) {
      const uint32_t left = inputs - begin < summed_inputs ? inputs - begin : summed_inputs;
      const uint8_t* weights = matrix + begin * row_size;
      find_live_inputs(x + begin, left, dtype, &live);
      if (dtype == DTYPE_F32) add_sparse_f32(weights, row_size, x + begin, &live, padded, begin == 0, totals);
      else if (dtype == DTYPE_BF16) add_sparse_bf16(weights, row_size, x + begin, &live, padded, begin == 0, totals);
      else add_sparse_f16(weights, row_size, x + begin, &live, padded, begin == 0, totals);
    }
    __builtin_memcpy(floats(record->address[4]) + (uint64_t)t * record->width + outputs.begin, totals, 4 * count);
  }
}
