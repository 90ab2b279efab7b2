// Products of rows in blocks that are mostly zeros with quantized matrices that lie input by input (by_input.h): the integers of
// an input whose own is zero are not read. Sums within a block of inputs are exact, and blocks are added as in
// matmul_quantized.c, so the results are the same to the bit. (A scale that is not finite shows only where an integer of its
// block is not zero.)

#include "by_input.h"
#include "dot.h"
#include "interleave.h"
#include "matmul.h"

// How many blocks before their turn weights are asked for.
enum { blocks_ahead = 2 };

// The inputs of a block of 32 whose integers are not zero, as fours of rows; those that are missing from the last four have the
// value 0 and any row.
struct live_block {
  uint32_t fours;
  const uint8_t* row[block_inputs];
  int8_t value[block_inputs];
};

static void find_live_block(const int8_t* x, const uint8_t* rows, uint64_t row_size, struct live_block* live) {
  uint8_t input[block_inputs + 4];
  uint32_t n = 0;
  for (uint32_t i = 0; i < block_inputs; i++) {
    input[n] = (uint8_t)i;
    n += x[i] != 0;
  }
  live->fours = (n + 3) / 4;
  for (uint32_t k = 0; k < 4 * live->fours; k++) {
    const uint32_t i = input[k < n ? k : n - 1];
    live->row[k] = rows + i * row_size;
    live->value[k] = k < n ? x[i] : 0;
  }
}

// sums += the products of one block of inputs. Type is a constant where this is used; `outputs` are whole lines.
static inline __attribute__((always_inline)) void add_live_block(const struct live_block* live,
                                                                 const struct live_block* next, uint32_t dtype,
                                                                 const uint16_t* scales, const uint16_t* next_scales,
                                                                 float row_scale, int32_t row_sum, uint32_t outputs,
                                                                 float* sums) {
  const uint32_t bytes = 4 * lanes, step = dtype == DTYPE_Q8 ? bytes : 2 * bytes, of_chunk = 16 / lanes;
  const int bias = dtype == DTYPE_Q8 ? signed_bias : 8;
  const vint start = splat_int(without_bias(bias, row_sum));
  const vfloat scale_of_x = splat(row_scale);
  for (uint32_t o = 0, at = 0; o < outputs; o += step, at += bytes) {
    if (at % line_bytes == 0) {
      for (uint32_t k = 0; k < 4 * next->fours; k++) __builtin_prefetch(next->row[k] + at, 0, 2);
      for (uint32_t k = 0; k < outputs_of_line(dtype); k += 32) __builtin_prefetch(next_scales + o + k, 0, 2);
    }
    vint totals[2][4];
    if (dtype == DTYPE_Q8) {
      for (uint32_t v = 0; v < 4; v++) totals[0][v] = start;
      for (uint32_t f = 0; f < live->fours; f++) {
        vint row[4], four[4], x = splat_bytes(live->value + 4 * f);
        for (uint32_t r = 0; r < 4; r++) row[r] = load_int(live->row[4 * f + r] + at);
        interleave_four(row, four);
        for (uint32_t v = 0; v < 4; v++) totals[0][v] = dot_signed(totals[0][v], four[v], x);
      }
    } else {
      vnibbles nibbles[2][4] = {0};
      for (uint32_t f = 0; f < live->fours; f++) {
        vint row[4], four[4], x = splat_bytes(live->value + 4 * f);
        for (uint32_t r = 0; r < 4; r++) row[r] = load_int(live->row[4 * f + r] + at);
        interleave_four(row, four);
        for (uint32_t v = 0; v < 4; v++) {
          nibbles[0][v] = dot_nibbles(nibbles[0][v], four[v] & 0x0f0f0f0f, x);
          nibbles[1][v] = dot_nibbles(nibbles[1][v], (four[v] >> 4) & 0x0f0f0f0f, x);
        }
      }
      for (uint32_t v = 0; v < 8; v++) totals[v / 4][v % 4] = start + nibble_total(nibbles[v / 4][v % 4]);
    }
    for (uint32_t half = 0; half < (dtype == DTYPE_Q8 ? 1 : 2); half++) {
      in_order(totals[half]);
      for (uint32_t v = 0; v < 4; v++) {
        const uint32_t to = o + (dtype == DTYPE_Q8 ? v * lanes : 32 * (v / of_chunk) + 16 * half + v % of_chunk * lanes);
        vfloat factor = load_f16(scales + to) * scale_of_x;
        store(sums + to, multiply_add(__builtin_convertvector(totals[half][v], vfloat), factor, load(sums + to)));
      }
    }
  }
}

NOT_INLINED void add_live_q8(const struct live_block* live, const struct live_block* next, const uint16_t* scales,
                             const uint16_t* next_scales, float row_scale, int32_t row_sum, uint32_t outputs, float* sums) {
  add_live_block(live, next, DTYPE_Q8, scales, next_scales, row_scale, row_sum, outputs, sums);
}
NOT_INLINED void add_live_q4(const struct live_block* live, const struct live_block* next, const uint16_t* scales,
                             const uint16_t* next_scales, float row_scale, int32_t row_sum, uint32_t outputs, float* sums) {
  add_live_block(live, next, DTYPE_Q4, scales, next_scales, row_scale, row_sum, outputs, sums);
}

// Rows of x in blocks, one after the other; `outputs` begins at a line and has sparse_outputs at most.
static void multiply_sparse_blocks(const struct record* record, const uint8_t* by_input, struct range outputs,
                                   uint32_t rows) {
  _Alignas(64) float sums[sparse_outputs];
  const uint32_t dtype = record->dtype, count = outputs.end - outputs.begin, padded = padded_outputs(count, dtype);
  const uint32_t pairs = pairs_of(record->inputs), blocks = 2 * pairs;
  const uint64_t row_size = input_row_size(record->width, dtype), block_size = input_block_size(record->width, dtype);
  const uint64_t before = dtype == DTYPE_Q8 ? outputs.begin : outputs.begin / 2;
  const uint8_t* scales = by_input + 2 * outputs.begin;
  const uint8_t* quants = by_input + block_scales_size(record->width, dtype) + before;
  for (uint32_t t = 0; t < rows; t++) {
    const int8_t* x = (const int8_t*)(uintptr_t)record->address[0] + t * quantized_row_size(pairs);
    struct live_block live[blocks_ahead + 1];
    __builtin_memset(sums, 0, 4 * padded);
    // What is not zero is found some blocks before it is multiplied, so that its weights can be asked for.
    for (uint32_t next = 0; next < blocks + blocks_ahead; next++) {
      struct live_block* found = live + next % (blocks_ahead + 1);
      const uint32_t asked = next < blocks ? next : blocks - 1;
      find_live_block(x + asked * block_inputs, quants + asked * block_size, row_size, found);
      if (next < blocks_ahead) continue;
      const uint32_t b = next - blocks_ahead;
      const struct live_block* now = live + b % (blocks_ahead + 1);
      const float scale = row_scales(x, pairs)[b];
      // A row with a value that is not finite has a scale that is not.
      if (now->fours == 0 && scale == scale) continue;
      const uint16_t* own_scales = (const uint16_t*)(scales + b * block_size);
      const uint16_t* next_scales = (const uint16_t*)(scales + asked * block_size);
      const int32_t sum = block_sum(x, pairs, b);
      if (dtype == DTYPE_Q8) add_live_q8(now, found, own_scales, next_scales, scale, sum, padded, sums);
      else add_live_q4(now, found, own_scales, next_scales, scale, sum, padded, sums);
    }
    __builtin_memcpy(floats(record->address[4]) + (uint64_t)t * record->width + outputs.begin, sums, 4 * count);
  }
}
