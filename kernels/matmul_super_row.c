// Products of a single row with weights in super-blocks: decoding, which should wait for memory only. Two distant groups are
// taken at a time, two streams of weights; all outputs of a group side by side, so that what is taken of x serves them all.
// The order of the additions is that of matmul_super_blocks.c.

#include "matmul.h"
#include "super_blocks.h"

// One super-block of a row of x: its integers, the scales of its blocks, and of what is summed: scale times sum of each block
// (Q4_K, Q5_K), or 32 times the sum of each half (Q6_K).
struct super_of_x {
  const int8_t* quant;
  const float* scales;
  float scaled_sums[parts_of_super];
  int32_t sums[2 * parts_of_super];
};

typedef vfloat group_sums[group_vectors];

// Sums of products of one part of Q4_K.
static inline __attribute__((always_inline)) void totals_q4k(const struct q4k_part* part, const int8_t* x, vint* totals) {
  vnibbles sums[group_vectors] = {0};
  for (uint32_t k = 0; k < 4; k++) {
    vint low = splat_bytes(x + 4 * k), high = splat_bytes(x + 4 * k + block_inputs / 2);
    for (uint32_t v = 0; v < group_vectors; v++) {
      vint both = load_int(part->quant[k][v * lanes]);
      sums[v] = dot_nibbles(dot_nibbles(sums[v], both & 0x0f0f0f0f, low), (both >> 4) & 0x0f0f0f0f, high);
    }
  }
  for (uint32_t v = 0; v < group_vectors; v++) totals[v] = nibble_total(sums[v]);
}

// Of Q5_K: sums of 16 bits, as some instruction sets have them, hold four products.
static inline __attribute__((always_inline)) void totals_q5k(const struct q5k_part* part, const int8_t* x, vint* totals) {
  for (uint32_t v = 0; v < group_vectors; v++) totals[v] = splat_int(0);
  for (uint32_t k = 0; k < 4; k += 2) {
    vnibbles sums[group_vectors] = {0};
    for (uint32_t i = k; i < k + 2; i++) {
      vint low = splat_bytes(x + 4 * i), high = splat_bytes(x + 4 * i + block_inputs / 2);
      for (uint32_t v = 0; v < group_vectors; v++) {
        vint both = load_int(part->quant[i][v * lanes]), upper = load_int(part->upper + v * lanes);
        vint lower = (both & 0x0f0f0f0f) | ((upper << (4 - i)) & 0x10101010);
        vint higher = ((both >> 4) & 0x0f0f0f0f) | ((upper >> i) & 0x10101010);
        sums[v] = dot_nibbles(dot_nibbles(sums[v], lower, low), higher, high);
      }
    }
    for (uint32_t v = 0; v < group_vectors; v++) totals[v] += nibble_total(sums[v]);
  }
}

// Of both halves of a part of Q6_K: two products fit.
static inline __attribute__((always_inline)) void totals_q6k(const struct q6k_part* part, const int8_t* x,
                                                             vint totals[2][group_vectors]) {
  for (uint32_t v = 0; v < 2 * group_vectors; v++) totals[v / group_vectors][v % group_vectors] = splat_int(0);
  for (uint32_t k = 0; k < 4; k += 2) {
    vnibbles sums[2][group_vectors] = {0};
    for (uint32_t i = k; i < k + 2; i++) {
      vint low = splat_bytes(x + 4 * i), high = splat_bytes(x + 4 * i + block_inputs / 2);
      for (uint32_t v = 0; v < group_vectors; v++) {
        vint both = load_int(part->quant[i][v * lanes]);
        vint upper[2] = {load_int(part->upper[0] + v * lanes), load_int(part->upper[1] + v * lanes)};
        for (uint32_t half = 0; half < 2; half++) upper[half] = i < 2 ? upper[half] << (4 - 2 * i) : upper[half] >> (2 * i - 4);
        sums[0][v] = dot_nibbles(sums[0][v], (both & 0x0f0f0f0f) | (upper[0] & 0x30303030), low);
        sums[1][v] = dot_nibbles(sums[1][v], ((both >> 4) & 0x0f0f0f0f) | (upper[1] & 0x30303030), high);
      }
    }
    for (uint32_t v = 0; v < 2 * group_vectors; v++) {
      totals[v / group_vectors][v % group_vectors] += nibble_total(sums[v / group_vectors][v % group_vectors]);
    }
  }
}

static inline __attribute__((always_inline)) void add_super_with_leasts(const uint8_t* super, uint32_t dtype,
                                                                        const struct super_of_x* x, const uint8_t* ahead,
                                                                        group_sums sums) {
  const struct q4k_super* head = (const struct q4k_super*)super;  // q5k begins alike
  const uint64_t part_size = (super_size(dtype) & ~(uint64_t)63) / parts_of_super;
  struct packed_scales packed[group_vectors];
  for (uint32_t part = 0; part < parts_of_super; part++) {
    vint totals[group_vectors];
    ask_part(ahead, part * part_size, (part + 1) * part_size);
    if (dtype == DTYPE_Q4K) totals_q4k(head->part + part, x->quant + part * block_inputs, totals);
    else totals_q5k(((const struct q5k_super*)super)->part + part, x->quant + part * block_inputs, totals);
    vfloat row_scale = splat(x->scales[part]), row_sum = splat(x->scaled_sums[part]);
    for (uint32_t v = 0; v < group_vectors; v++) {
      if (part % 4 == 0) packed[v] = scales_of_four(head->packed, v * lanes, part);
      vfloat scale = load_f16(head->scale[0] + v * lanes) * to_floats(packed[v].scales & 255);
      vfloat least = -load_f16(head->scale[1] + v * lanes) * to_floats(packed[v].leasts & 255);
      packed[v].scales >>= 8;
      packed[v].leasts >>= 8;
      vfloat sum = multiply_add(to_floats(totals[v]), scale * row_scale, sums[v]);
      sums[v] = multiply_add(least, row_sum, sum);
    }
  }
}

static inline __attribute__((always_inline)) void add_super_q6k(const uint8_t* super, const struct super_of_x* x,
                                                                const uint8_t* ahead, group_sums sums) {
  const struct q6k_super* head = (const struct q6k_super*)super;
  const uint64_t part_size = (super_size(DTYPE_Q6K) & ~(uint64_t)63) / parts_of_super;
  for (uint32_t part = 0; part < parts_of_super; part++) {
    vint totals[2][group_vectors];
    ask_part(ahead, part * part_size, (part + 1) * part_size);
    totals_q6k(head->part + part, x->quant + part * block_inputs, totals);
    vfloat row_scale = splat(x->scales[part]);
    for (uint32_t half = 0; half < 2; half++) {
      vint sum_of_x = splat_int(x->sums[2 * part + half]);
      for (uint32_t v = 0; v < group_vectors; v++) {
        vfloat scale = load_f16(head->scale + v * lanes) * small_scale(head->part_scale[2 * part + half] + v * lanes);
        sums[v] = multiply_add(to_floats(totals[half][v] - sum_of_x), scale * row_scale, sums[v]);
      }
    }
  }
}

// What the products of one super-block take of x.
static inline __attribute__((always_inline)) void take_super_of_x(const int8_t* row, uint32_t pairs, uint32_t super,
                                                                  uint32_t dtype, struct super_of_x* x) {
  const int32_t* sums = row_sums(row, pairs) + super * 2 * parts_of_super;
  x->quant = row + super * super_inputs;
  x->scales = row_scales(row, pairs) + super * parts_of_super;
  if (dtype == DTYPE_Q6K) {
    for (uint32_t i = 0; i < 2 * parts_of_super; i++) x->sums[i] = 32 * sums[i];
  } else {
    for (uint32_t i = 0; i < parts_of_super; i++) x->scaled_sums[i] = x->scales[i] * (float)(sums[2 * i] + sums[2 * i + 1]);
  }
}

// Two groups that are `apart` groups apart, or one, from output `output` on. Type and groups are constants where this is used.
static inline __attribute__((always_inline)) void multiply_groups(const struct record* record, uint32_t dtype, uint32_t output,
                                                                  uint32_t apart, uint32_t groups) {
  const uint64_t size = super_size(dtype);
  const uint32_t supers = record->inputs / super_inputs, pairs = pairs_of(record->inputs);
  const int8_t* row = (const int8_t*)(uintptr_t)record->address[0];
  const uint8_t* weights = (const uint8_t*)(uintptr_t)record->address[1] + (uint64_t)(output / group_outputs) * supers * size;
  group_sums sums[2] = {0};
  for (uint32_t s = 0; s < supers; s++, weights += size) {
    struct super_of_x x;
    take_super_of_x(row, pairs, s, dtype, &x);
    for (uint32_t g = 0; g < groups; g++) {
      const uint8_t* super = weights + (uint64_t)g * apart * supers * size;
      if (dtype == DTYPE_Q6K) add_super_q6k(super, &x, super + super_distance, sums[g]);
      else add_super_with_leasts(super, dtype, &x, super + super_distance, sums[g]);
    }
  }
  for (uint32_t g = 0; g < groups; g++) {
    for (uint32_t v = 0; v < group_vectors; v++) {
      uint32_t o = output + g * apart * group_outputs + v * lanes;
      if (o < record->width) store_up_to(floats(record->address[4]) + o, sums[g][v], record->width - o);
    }
  }
}

typedef void groups_function(const struct record* record, uint32_t output, uint32_t apart);

#define DEFINE_GROUPS(name, dtype)                                                                   \
  NOT_INLINED void name##_one(const struct record* record, uint32_t output, uint32_t apart) {        \
    multiply_groups(record, dtype, output, apart, 1);                                                \
  }                                                                                                  \
  NOT_INLINED void name##_two(const struct record* record, uint32_t output, uint32_t apart) {        \
    multiply_groups(record, dtype, output, apart, 2);                                                \
  }
DEFINE_GROUPS(groups_q4k, DTYPE_Q4K)
DEFINE_GROUPS(groups_q5k, DTYPE_Q5K)
DEFINE_GROUPS(groups_q6k, DTYPE_Q6K)

// By type.
static const struct {
  groups_function *one, *two;
} groups_functions[] = {
    {groups_q4k_one, groups_q4k_two}, {groups_q5k_one, groups_q5k_two}, {groups_q6k_one, groups_q6k_two}};

// `outputs` begins at a group.
static void multiply_super_row(const struct record* record, struct range outputs) {
  const uint32_t all = (outputs.end - outputs.begin + group_outputs - 1) / group_outputs, tiles = all / 2;
  for (uint32_t i = 0; i < tiles; i++) {
    groups_functions[record->dtype - DTYPE_Q4K].two(record, outputs.begin + i * group_outputs, tiles);
  }
  if (all % 2 == 1) groups_functions[record->dtype - DTYPE_Q4K].one(record, outputs.begin + 2 * tiles * group_outputs, 0);
}
