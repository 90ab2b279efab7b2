// Chains of functions of one and two elements, as a short program over tiles that stay in the first cache: one pass over memory
// however many functions there are. src/backends/kernel/program.ts writes programs; elementwise.def lists the functions.
//
// Functions of few instructions that follow each other run in steps (elementwise_steps.def) on a strip of vectors that stays in
// registers: reading and writing the first cache for each of them takes longer than they do.

#include "kernels.h"
#include "simd.h"

#define FUNCTION(name, value) FUNCTION_##name,
enum function {
#include "elementwise.def"
  function_count
};
#undef FUNCTION

#define STEP(name, value) STEP_##name,
#define UNARY_STEP(name) STEP_##name,
#define PAIR(first, second) STEP_##first##_##second,
enum step_function {
  before_steps = function_count - 1,
#include "elementwise_steps.def"
};
#undef STEP
#undef UNARY_STEP
#undef PAIR

// What a program may have; src/graph/chains.ts knows the same limits.
enum { most_program_inputs = 16, most_program_constants = 16, most_program_outputs = 8, most_program_slots = 12 };
enum { most_program_values = most_program_inputs + most_program_constants + most_program_outputs + most_program_slots };

// Floats of a tile: few enough that the tiles of a program stay in the first cache, enough to hide what an instruction costs.
// Instructions are computed in strides. Steps are computed in strips, of as many vectors as leave registers for operands where
// there are sixteen, and of no more than 64 floats, so that rows of narrow heads are whole strips; a tile that does not end with
// one is computed aside, where there is room behind it.
enum { tile_floats = 256, stride_vectors = 4, stride_floats = stride_vectors * lanes };
enum { strip_vectors = lanes > 8 ? 4 : 8, strip_floats = strip_vectors * lanes };

// Values are numbered: inputs, then constants, then outputs, then slots for what lies between.
struct program {
  uint32_t inputs, outputs, constants, slots, instructions;
  uint32_t words[];  // two for each input, then constants, then instructions and steps
};

struct program_input {
  uint32_t one_row;  // whether its one row stands for all rows
  uint32_t repeat;   // consecutive channels that each of its floats stands for
};

struct instruction {
  uint8_t function, a, b, result;
};

// In place of an instruction's function: `a` instructions follow that are steps.
enum { steps_follow = 255 };

// value = function(value, first), of which a pair's second function is computed with `second`; then it is stored, unless it is
// only needed by the next step.
struct step {
  uint8_t function, first, second, stored;
};

enum { not_stored = 255 };

#define FUNCTION(name, value)                          \
  static inline vfloat name##_of(vfloat a, vfloat b) { \
    (void)a, (void)b;                                  \
    return value;                                      \
  }
#include "elementwise.def"
#undef FUNCTION

// result[i] = function(a[i], b[i]) for whole strides; the result may be an operand.
NOT_INLINED void run_instruction(uint32_t function, const float* a, const float* b, float* result, uint32_t count) {
  switch (function) {
#define FUNCTION(name, value)                                                                                            \
  case FUNCTION_##name:                                                                                                  \
    for (uint32_t i = 0; i < count; i += stride_floats) {                                                                \
      vfloat x[stride_vectors], y[stride_vectors];                                                                       \
      for (int v = 0; v < stride_vectors; v++) x[v] = load(a + i + v * lanes), y[v] = load(b + i + v * lanes);           \
      for (int v = 0; v < stride_vectors; v++) store(result + i + v * lanes, name##_of(x[v], y[v]));                     \
    }                                                                                                                    \
    return;
#include "elementwise.def"
#undef FUNCTION
  }
}

#define STEP(name, value)                                \
  static inline vfloat name##_step(vfloat a, vfloat b) { \
    (void)a;                                             \
    return value;                                        \
  }
#define UNARY_STEP(name)
#define PAIR(first, second)
#include "elementwise_steps.def"
#undef STEP
#undef UNARY_STEP
#undef PAIR

// Steps of whole strips.
NOT_INLINED void run_steps(const struct step* begin, const struct step* end, float* const* values, uint32_t count) {
  for (uint32_t i = 0; i < count; i += strip_floats) {
    vfloat x[strip_vectors] = {0};
    const struct step* step = begin;
    do {
      const float* first = values[step->first] + i;
      switch (step->function) {
#define STEP(name, value)                                                                            \
  case STEP_##name:                                                                                  \
    for (int v = 0; v < strip_vectors; v++) x[v] = name##_step(x[v], load(first + v * lanes)); \
    break;
#define UNARY_STEP(name)                                                      \
  case STEP_##name:                                                           \
    for (int v = 0; v < strip_vectors; v++) x[v] = name##_of(x[v], x[v]); \
    break;
#define PAIR(one, other)                                                                               \
  case STEP_##one##_##other: {                                                                         \
    const float* second = values[step->second] + i;                                                    \
    for (int v = 0; v < strip_vectors; v++) x[v] = one##_step(x[v], load(first + v * lanes));    \
    for (int v = 0; v < strip_vectors; v++) x[v] = other##_step(x[v], load(second + v * lanes)); \
    break;                                                                                             \
  }
#include "elementwise_steps.def"
#undef STEP
#undef UNARY_STEP
#undef PAIR
      }
      if (step->stored != not_stored) {
        float* to = values[step->stored] + i;
        for (int v = 0; v < strip_vectors; v++) store(to + v * lanes, x[v]);
      }
    } while (++step < end);
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
  const struct program* program;
  const struct instruction* instructions;
  const float* inputs[most_program_inputs];
  uint64_t rows[most_program_inputs];     // floats from one row of an input to the next; 0 where it has one
  uint32_t repeats[most_program_inputs];
  float* outputs[most_program_outputs];
  float (*tiles)[tile_floats];            // room for each value: constants are there already
  float* values[most_program_values];     // where each value of the tile is
};

// Some channels of one row.
static void run_tile(struct program_run* run, uint64_t row, uint64_t width, uint64_t channel, uint32_t count) {
  const struct program* program = run->program;
  const uint32_t first_output = program->inputs + program->constants;
  const uint32_t whole = (count + strip_floats - 1) / strip_floats * strip_floats;
  const int is_whole = count == whole;
  for (uint32_t i = 0; i < program->inputs; i++) {
    const float* from = run->inputs[i] + row * run->rows[i];
    const uint32_t repeat = run->repeats[i];
    float* tile = run->tiles[i];
    if (repeat == 1 && is_whole) {
      run->values[i] = (float*)from + channel;
      continue;
    }
    if (repeat == 1) __builtin_memcpy(tile, from + channel, count * sizeof *tile);
    else spread(from, repeat, (uint32_t)channel, count, tile);
    for (uint32_t c = count; c < whole; c++) tile[c] = 0;
    run->values[i] = tile;
  }
  for (uint32_t i = 0; i < program->outputs; i++) {
    run->values[first_output + i] = is_whole ? run->outputs[i] + row * width + channel : run->tiles[first_output + i];
  }
  for (uint32_t i = 0; i < program->instructions; i++) {
    const struct instruction instruction = run->instructions[i];
    if (instruction.function == steps_follow) {
      const struct step* steps = (const struct step*)(run->instructions + i + 1);
      run_steps(steps, steps + instruction.a, run->values, whole);
      i += instruction.a;
      continue;
    }
    run_instruction(instruction.function, run->values[instruction.a], run->values[instruction.b], run->values[instruction.result],
                    whole);
  }
  for (uint32_t i = 0; i < program->outputs && !is_whole; i++) {
    __builtin_memcpy(run->outputs[i] + row * width + channel, run->tiles[first_output + i], count * sizeof(float));
  }
}

// outputs = program(inputs)
//   address: inputs, each [rows or 1, width / repeat], then outputs [rows, width]; an output may lie where an
//     input does that no later instruction reads
//   attribute: whether threads share channels, as their neighbours do, or else elements
static void elementwise_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  _Alignas(64) float tiles[most_program_values][tile_floats];
  const struct program* program = (const struct program*)((const char*)record + record->program);
  const struct program_input* inputs = (const struct program_input*)program->words;
  const float* constants = (const float*)(inputs + program->inputs);
  struct program_run run = {
      .program = program,
      .instructions = (const struct instruction*)(constants + program->constants),
      .tiles = tiles,
  };
  uint64_t rows = row_count(pass, record), width = record->width;
  int is_flat = 1;
  for (uint32_t i = 0; i < program->inputs; i++) {
    run.inputs[i] = floats(record->address[i]);
    run.rows[i] = inputs[i].one_row ? 0 : width / inputs[i].repeat;
    run.repeats[i] = inputs[i].repeat;
    is_flat &= !inputs[i].one_row && inputs[i].repeat == 1;
  }
  for (uint32_t i = 0; i < program->constants; i++) {
    float* tile = run.values[program->inputs + i] = tiles[program->inputs + i];
    for (uint32_t c = 0; c < tile_floats; c += lanes) store(tile + c, splat(constants[i]));
  }
  for (uint32_t i = 0; i < program->outputs; i++) run.outputs[i] = floats(record->address[program->inputs + i]);
  const uint32_t first_slot = program->inputs + program->constants + program->outputs;
  for (uint32_t i = first_slot; i < first_slot + program->slots; i++) run.values[i] = tiles[i];

  if (record->attribute[0].count) {
    struct range channels = channels_of(record->width, thread, pass->thread_count);
    for (uint64_t t = 0; t < rows; t++) {
      for (uint32_t c = channels.begin; c < channels.end; c += tile_floats) {
        run_tile(&run, t, width, c, channels.end - c < tile_floats ? channels.end - c : tile_floats);
      }
    }
    return;
  }
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
