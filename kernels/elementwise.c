// Chains of functions of one and two elements, as a short program over tiles that stay in the first cache: one pass over memory however
// many functions there are. src/backends/kernel/program.ts writes programs; elementwise.def lists the functions.

#include "kernels.h"
#include "simd.h"

#define FUNCTION(name, value) FUNCTION_##name,
enum function {
#include "elementwise.def"
};
#undef FUNCTION

// What a program may have; src/graph/chains.ts knows the same limits.
enum { most_program_inputs = 16, most_program_constants = 16, most_program_outputs = 8, most_program_slots = 12 };
enum { most_program_values = most_program_inputs + most_program_constants + most_program_outputs + most_program_slots };

// Floats of a tile: few enough that all tiles of a program stay in the first cache, enough to hide what an instruction costs.
enum { tile_floats = 256 };

// Values are numbered: inputs, then constants, then outputs, then slots for what lies between.
struct program {
  uint32_t inputs, outputs, constants, slots, instructions;
  uint32_t words[];  // two for each input, then constants, then instructions
};

struct program_input {
  uint32_t one_row;  // whether its one row stands for all rows
  uint32_t repeat;   // consecutive channels that each of its floats stands for
};

struct instruction {
  uint8_t function, a, b, result;
};

// Where a value's part of a tile is; constants are one vector, which every vector of a tile reads.
struct tile_value {
  float* at;
  uint32_t mask;  // of offsets: 0 for constants
};

#define FUNCTION(name, value)                               \
  static inline vfloat name##_of(vfloat a, vfloat b) {      \
    (void)a, (void)b;                                       \
    return value;                                           \
  }
#include "elementwise.def"
#undef FUNCTION

NOT_INLINED void run_instruction(uint32_t function, struct tile_value a, struct tile_value b, float* result, uint32_t count) {
  const uint32_t whole = count / lanes * lanes, left = count - whole;
  switch (function) {
#define FUNCTION(name, value)                                                                \
  case FUNCTION_##name: {                                                                    \
    for (uint32_t i = 0; i < whole; i += lanes) {                                            \
      vfloat x = load(a.at + (i & a.mask)), y = load(b.at + (i & b.mask));                   \
      store(result + i, name##_of(x, y));                                                    \
    }                                                                                        \
    if (left) {                                                                              \
      vfloat x = load_part(a.at + (whole & a.mask), left), y = load_part(b.at + (whole & b.mask), left); \
      store_part(result + whole, name##_of(x, y), left);                                     \
    }                                                                                        \
    return;                                                                                  \
  }
#include "elementwise.def"
#undef FUNCTION
  }
}

// Floats `first` to `first + count` of a row whose floats each stand for `repeat` channels.
static void spread(const float* row, uint32_t repeat, uint32_t first, uint32_t count, float* to) {
  const float* from = row + first / repeat;
  for (uint32_t i = 0, until = repeat - first % repeat; i < count; from++, until += repeat) {
    for (uint32_t end = until < count ? until : count; i < end; i++) to[i] = *from;
  }
}

struct program_run {
  const struct record* record;
  const struct program* program;
  const struct program_input* inputs;
  const struct instruction* instructions;
  float (*tiles)[tile_floats];  // of slots, then of inputs that are spread
  struct tile_value values[most_program_values];
};

// Some channels of one row.
static void run_tile(struct program_run* run, uint64_t row, uint64_t width, uint64_t channel, uint32_t count) {
  const struct program* program = run->program;
  float (*tile)[tile_floats] = run->tiles + program->slots;
  for (uint32_t i = 0; i < program->inputs; i++) {
    const struct program_input input = run->inputs[i];
    float* at = floats(run->record->address[i]) + (input.one_row ? 0 : row * (width / input.repeat));
    if (input.repeat == 1) at += channel;
    else {
      spread(at, input.repeat, (uint32_t)channel, count, *tile);
      at = *tile++;
    }
    run->values[i].at = at;
  }
  for (uint32_t i = 0; i < program->outputs; i++) {
    float* output = floats(run->record->address[program->inputs + i]);
    run->values[program->inputs + program->constants + i].at = output + row * width + channel;
  }
  for (uint32_t i = 0; i < program->instructions; i++) {
    const struct instruction instruction = run->instructions[i];
    run_instruction(instruction.function, run->values[instruction.a], run->values[instruction.b],
                    run->values[instruction.result].at, count);
  }
}

// outputs = program(inputs)
//   address: inputs, each [rows or 1, width / repeat], then outputs [rows, width]; an output may lie where an input does that no later
//     instruction reads
//   attribute: whether threads share channels, as their neighbours do, or else elements
static void elementwise_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  _Alignas(64) float tiles[most_program_slots + most_program_inputs][tile_floats];
  _Alignas(64) float constants[most_program_constants][lanes];
  const struct program* program = (const struct program*)((const char*)record + record->program);
  struct program_run run = {
      .record = record,
      .program = program,
      .inputs = (const struct program_input*)program->words,
      .instructions = (const struct instruction*)(program->words + 2 * program->inputs + program->constants),
      .tiles = tiles,
  };
  const float* numbers = (const float*)(program->words + 2 * program->inputs);
  for (uint32_t i = 0; i < most_program_values; i++) run.values[i].mask = ~0u;
  for (uint32_t i = 0; i < program->constants; i++) {
    store(constants[i], splat(numbers[i]));
    run.values[program->inputs + i] = (struct tile_value){constants[i], 0};
  }
  struct tile_value* slots = run.values + program->inputs + program->constants + program->outputs;
  for (uint32_t i = 0; i < program->slots; i++) slots[i].at = tiles[i];

  uint64_t rows = row_count(pass, record), width = record->width;
  if (record->attribute[0].count) {
    struct range channels = channels_of(record->width, thread, pass->thread_count);
    for (uint64_t t = 0; t < rows; t++) {
      for (uint32_t c = channels.begin; c < channels.end; c += tile_floats) {
        run_tile(&run, t, width, c, channels.end - c < tile_floats ? channels.end - c : tile_floats);
      }
    }
    return;
  }
  int is_flat = 1;
  for (uint32_t i = 0; i < program->inputs; i++) is_flat &= !run.inputs[i].one_row && run.inputs[i].repeat == 1;
  struct element_range range = share_of_elements(rows * width, fine_channel_grain, thread, pass->thread_count);
  if (is_flat) width = rows * width;
  for (uint64_t i = range.begin; i < range.end;) {
    uint64_t channel = i % width, count = width - channel;
    if (count > range.end - i) count = range.end - i;
    if (count > tile_floats) count = tile_floats;
    run_tile(&run, i / width, width, channel, (uint32_t)count);
    i += count;
  }
}
