// Products with weights in super-blocks (quantized.h): Q4_K, Q5_K and Q6_K. As in matmul_quantized.c rows of x are in blocks
// of 8 bits, and a vector holds neighbouring outputs. The weights of a part, 32 inputs, are put together from their bits into
// eight vectors of bytes, once for all rows, which pass by. The order of the additions is the same for any number of rows.

#include "dot.h"
#include "matmul.h"
#include "matmul_super_row.c"
#include "quantized.h"
#include "super_blocks.h"

// Rows whose sums are kept together.
enum { super_rows = 32 };

// Rows of x that are multiplied by a group stay in the first level cache: of fewer rows longer parts of the inputs.
enum { super_cached = 64 };

// Eight vectors, each with four inputs of `lanes` outputs.
typedef vint part_weights[8];

static inline __attribute__((always_inline)) void lower_bits(const uint8_t* quant, part_weights w) {
  for (uint32_t k = 0; k < 4; k++) {
    vint both = load_int(quant + k * 4 * group_outputs);
    w[k] = both & 0x0f0f0f0f;
    w[k + 4] = (both >> 4) & 0x0f0f0f0f;
  }
}

// `output` is one of the group's.
static inline __attribute__((always_inline)) void unpack_part(const uint8_t* super, uint32_t dtype, uint32_t part,
                                                              uint32_t output, part_weights w) {
  if (dtype == DTYPE_Q4K) {
    lower_bits(((const struct q4k_super*)super)->part[part].quant[0][output], w);
  } else if (dtype == DTYPE_Q5K) {
    const struct q5k_part* of = ((const struct q5k_super*)super)->part + part;
    lower_bits(of->quant[0][output], w);
    vint upper = load_int(of->upper + output);
    for (uint32_t k = 0; k < 8; k++) w[k] |= (k < 4 ? upper << (4 - k) : upper >> (k - 4)) & 0x10101010;
  } else {
    const struct q6k_part* of = ((const struct q6k_super*)super)->part + part;
    lower_bits(of->quant[0][output], w);
    for (uint32_t half = 0; half < 2; half++) {
      vint upper = load_int(of->upper[half] + output);
      for (uint32_t k = 0; k < 4; k++) {
        w[4 * half + k] |= (k < 2 ? upper << (4 - 2 * k) : upper >> (2 * k - 4)) & 0x30303030;
      }
    }
  }
}

// The sum of products of `count` vectors of weights with as many fours of x. Sums of 16 bits, as some instruction sets have
// them, hold so many products of weights of this type as `together` says.
static inline __attribute__((always_inline)) vint dot_part(const vint* w, const int8_t* x, uint32_t count, uint32_t together) {
  vint total = {0};
  for (uint32_t k = 0; k < count; k += together) {
    vnibbles sum = {0};
    for (uint32_t i = k; i < k + together; i++) sum = dot_nibbles(sum, w[i], splat_bytes(x + 4 * i));
    total += nibble_total(sum);
  }
  return total;
}

// Rows of x at the first input of a super-block.
struct super_rows_of_x {
  const int8_t* quant;
  const float* scales;
  const int32_t* sums;
  uint64_t stride;  // from row to row, in bytes
};

static inline struct super_rows_of_x row_of_x(struct super_rows_of_x x, uint32_t r) {
  uint64_t to = r * x.stride;
  return (struct super_rows_of_x){x.quant + to, (const float*)((const int8_t*)x.scales + to),
                                  (const int32_t*)((const int8_t*)x.sums + to), x.stride};
}

// sums[r] += products of one super-block of `lanes` outputs with row r. `ahead` is what to ask for, or 0.
static inline __attribute__((always_inline)) void multiply_super(const uint8_t* super, uint32_t dtype, uint32_t output,
                                                                 struct super_rows_of_x x, uint32_t rows, const uint8_t* ahead,
                                                                 vfloat* sums) {
  const uint64_t part_size = (super_size(dtype) & ~(uint64_t)63) / parts_of_super;
  if (dtype != DTYPE_Q6K) {
    const struct q4k_super* head = (const struct q4k_super*)super;  // q5k begins alike
    vfloat scale = load_f16(head->scale[0] + output), least = -load_f16(head->scale[1] + output);
    struct packed_scales packed = {0};
    for (uint32_t part = 0; part < parts_of_super; part++) {
      if (ahead) ask_part(ahead, part * part_size, (part + 1) * part_size);
      if (part % 4 == 0) packed = scales_of_four(head->packed, output, part);
      part_weights w;
      unpack_part(super, dtype, part, output, w);
      vfloat part_scale = scale * to_floats(packed.scales & 255), part_least = least * to_floats(packed.leasts & 255);
      packed.scales >>= 8;
      packed.leasts >>= 8;
      for (uint32_t r = 0; r < rows; r++) {
        struct super_rows_of_x row = row_of_x(x, r);
        vint total = dot_part(w, row.quant + part * block_inputs, 8, dtype == DTYPE_Q4K ? 8 : 4);
        float row_scale = row.scales[part], row_sum = row_scale * (float)(row.sums[2 * part] + row.sums[2 * part + 1]);
        vfloat sum = multiply_add(to_floats(total), part_scale * splat(row_scale), sums[r * group_vectors]);
        sums[r * group_vectors] = multiply_add(part_least, splat(row_sum), sum);
      }
    }
  } else {
    const struct q6k_super* head = (const struct q6k_super*)super;
    vfloat scale = load_f16(head->scale + output);
    for (uint32_t part = 0; part < parts_of_super; part++) {
      if (ahead) ask_part(ahead, part * part_size, (part + 1) * part_size);
      part_weights w;
      unpack_part(super, dtype, part, output, w);
      vfloat part_scale[2];
      for (uint32_t half = 0; half < 2; half++) {
        part_scale[half] = scale * small_scale(head->part_scale[2 * part + half] + output);
      }
      for (uint32_t r = 0; r < rows; r++) {
        struct super_rows_of_x row = row_of_x(x, r);
        for (uint32_t half = 0; half < 2; half++) {
          const int8_t* quant = row.quant + part * block_inputs + half * block_inputs / 2;
          vint total = dot_part(w + 4 * half, quant, 4, 2) - splat_int(32 * row.sums[2 * part + half]);
          vfloat factor = part_scale[half] * splat(row.scales[part]);
          sums[r * group_vectors] = multiply_add(to_floats(total), factor, sums[r * group_vectors]);
        }
      }
    }
  }
}

// The group of output `output` by `rows` rows of x from `row` on, over the super-blocks from `begin` to `end`, whose results are
// added to what is there where begin > 0.
static inline __attribute__((always_inline)) void multiply_supers(const struct record* record, uint32_t dtype, uint32_t output,
                                                                  uint32_t row, uint32_t rows, uint32_t begin, uint32_t end,
                                                                  uint64_t distance) {
  const uint64_t size = super_size(dtype);
  uint32_t supers = record->inputs / super_inputs, pairs = pairs_of(record->inputs);
  uint64_t stride = quantized_row_size(pairs);
  const int8_t* first = (const int8_t*)(uintptr_t)record->address[0] + row * stride;
  const uint8_t* weights = (const uint8_t*)(uintptr_t)record->address[1] + (uint64_t)(output / group_outputs) * supers * size;
  float* results = floats(record->address[4]) + (uint64_t)row * record->width;
  vfloat sums[super_rows * group_vectors];
  for (uint32_t i = 0; i < rows * group_vectors; i++) {
    uint32_t o = output + i % group_vectors * lanes;
    int some = begin > 0 && o < record->width;
    sums[i] = some ? load_up_to(results + (uint64_t)(i / group_vectors) * record->width + o, record->width - o) : splat(0);
  }
  for (uint32_t s = begin; s < end; s++) {
    struct super_rows_of_x x = {first + s * super_inputs, row_scales(first, pairs) + s * parts_of_super,
                                row_sums(first, pairs) + s * 2 * parts_of_super, stride};
    const uint8_t* super = weights + s * size;
    for (uint32_t v = 0; v < group_vectors; v++) {
      multiply_super(super, dtype, v * lanes, x, rows, v == 0 && distance ? super + distance : 0, sums + v);
    }
  }
  for (uint32_t i = 0; i < rows * group_vectors; i++) {
    uint32_t o = output + i % group_vectors * lanes;
    if (o >= record->width) continue;
    store_up_to(results + (uint64_t)(i / group_vectors) * record->width + o, sums[i], record->width - o);
  }
}

typedef void super_rows_function(const struct record* record, uint32_t output, uint32_t row, uint32_t rows, uint32_t begin,
                                 uint32_t end, uint64_t distance);

#define DEFINE_SUPERS(name, dtype)                                                                                          \
  NOT_INLINED void name##_rows(const struct record* record, uint32_t output, uint32_t row, uint32_t rows, uint32_t begin,   \
                               uint32_t end, uint64_t distance) {                                                           \
    multiply_supers(record, dtype, output, row, rows, begin, end, distance);                                                \
  }
DEFINE_SUPERS(supers_q4k, DTYPE_Q4K)
DEFINE_SUPERS(supers_q5k, DTYPE_Q5K)
DEFINE_SUPERS(supers_q6k, DTYPE_Q6K)

// By type.
static super_rows_function* const super_rows_functions[] = {supers_q4k_rows, supers_q5k_rows, supers_q6k_rows};

// `outputs` begins at a group.
static void multiply_super_blocks(const struct record* record, struct range outputs, uint32_t rows) {
  if (rows == 1) return multiply_super_row(record, outputs);
  const uint32_t supers = record->inputs / super_inputs;
  const uint64_t group = super_size(record->dtype) * supers;
  const uint32_t part = super_cached / (rows < super_rows ? rows : super_rows);
  for (uint32_t begin = 0, end; begin < supers; begin = end) {
    end = supers - begin > part ? begin + part : supers;
    // Where all inputs are taken, the next weights lie behind these, elsewhere in the next group.
    const uint64_t distance = part >= supers ? super_distance : group;
    for (uint32_t output = outputs.begin; output < outputs.end; output += group_outputs) {
      for (uint32_t row = 0; row < rows; row += super_rows) {
        uint32_t some = rows - row < super_rows ? rows - row : super_rows;
        super_rows_functions[record->dtype - DTYPE_Q4K](record, output, row, some, begin, end, row == 0 ? distance : 0);
      }
    }
  }
}
