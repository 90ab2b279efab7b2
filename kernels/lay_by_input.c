// Matrices to the layout of by_input.h, when a model is loaded.

#include "by_input.h"
#include "kernels.h"

// Inputs that are taken together: of each output what lies in a few cache lines.
enum { turned_inputs = 32 };

static void turn_floats(const struct record* record, uint32_t begin, uint32_t end, uint32_t element) {
  const uint64_t row_size = input_row_size(record->width, record->dtype);
  const uint8_t* from = (const uint8_t*)(uintptr_t)record->address[0];
  uint8_t* to = (uint8_t*)(uintptr_t)record->address[1];
  for (uint32_t o = 0; o < record->width; o++) {
    for (uint32_t i = begin; i < end; i++) {
      const uint64_t at = (uint64_t)o * record->inputs + i;
      if (element == 4) ((uint32_t*)(to + i * row_size))[o] = ((const uint32_t*)from)[at];
      else ((uint16_t*)(to + i * row_size))[o] = ((const uint16_t*)from)[at];
    }
  }
}

// A block of all groups.
static void turn_block(const struct record* record, uint32_t block) {
  const uint32_t dtype = record->dtype, pairs = pairs_of(record->inputs);
  const uint64_t row_size = input_row_size(record->width, dtype);
  const uint8_t* matrix = (const uint8_t*)(uintptr_t)record->address[0];
  uint8_t* scales = (uint8_t*)(uintptr_t)record->address[1] + block * input_block_size(record->width, dtype);
  uint8_t* rows = scales + block_scales_size(record->width, dtype);
  for (uint32_t output = 0; output < record->width; output += group_outputs) {
    const uint64_t at = (uint64_t)(output / group_outputs) * pairs + block / 2;
    const struct q8_pair* q8 = (const struct q8_pair*)matrix + at;
    const struct q4_pair* q4 = (const struct q4_pair*)matrix + at;
    const uint16_t* scale = dtype == DTYPE_Q8 ? q8->scale[block % 2] : q4->scale[block % 2];
    __builtin_memcpy(scales + 2 * output, scale, 2 * group_outputs);
    for (uint32_t i = 0; i < block_inputs; i++) {
      uint8_t* row = rows + i * row_size;
      for (uint32_t o = 0; o < group_outputs; o++) {
        if (dtype == DTYPE_Q8) {
          row[output + o] = (uint8_t)q8->quant[block % 2][i / 4][o][i % 4];
        } else {
          const uint8_t both = q4->quant[block % 2][i / 4 % 4][o][i % 4], quant = i < block_inputs / 2 ? both & 15 : both >> 4;
          uint8_t* byte = row + output / 32 * 16 + o;
          *byte = output % 32 == 0 ? quant : (uint8_t)(*byte | quant << 4);
        }
      }
    }
  }
}

// out = the matrix, input by input
//   address: matrix [width, inputs] of dtype, out, which is zeros; threads share the inputs
static void lay_by_input(const struct pass* pass, const struct record* record, uint32_t thread) {
  struct range inputs = share_of(record->inputs, turned_inputs, thread, pass->thread_count);
  for (uint32_t begin = inputs.begin; begin < inputs.end; begin += turned_inputs) {
    const uint32_t end = inputs.end - begin < turned_inputs ? inputs.end : begin + turned_inputs;
    if (!is_float(record->dtype)) turn_block(record, begin / block_inputs);
    else if (record->dtype == DTYPE_F32) turn_floats(record, begin, end, 4);
    else turn_floats(record, begin, end, 2);
  }
}
