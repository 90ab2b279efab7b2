// What JavaScript hands to the kernels: a flat list of records, one an operation, and the pass they are run for. The same
// layout is written by src/backends/kernel/records.ts; the two must change together.
#pragma once

#include <stdint.h>

// Kernels by number. The order is that of kernelNumbers in records.ts.
enum kernel {
  KERNEL_EMBEDDING,
  KERNEL_LAYER_NORM,
  KERNEL_TOKEN_SHIFT,
  KERNEL_MATMUL,
  KERNEL_WKV,
  KERNEL_UNARY,
  KERNEL_BINARY,
  KERNEL_SELECT_ROWS,
  KERNEL_QUANTIZE_ROWS,
  KERNEL_QUANTIZE_WEIGHTS,
  KERNEL_CHOOSE,
  KERNEL_PROBE_READ,
  KERNEL_PROBE_ARITHMETIC,
  // Of training:
  KERNEL_CROSS_ENTROPY,
  KERNEL_TRANSPOSED_MATMUL,
  KERNEL_WEIGHT_GRADIENT,
  KERNEL_EMBEDDING_GRADIENT,
  KERNEL_LAYER_NORM_GRADIENT,
  KERNEL_ROW_MOMENTS,
  KERNEL_LAYER_NORM_WEIGHT_GRADIENT,
  KERNEL_COLUMN_SUMS,
  KERNEL_TOKEN_SHIFT_GRADIENT,
  KERNEL_WKV_GRADIENT,
  KERNEL_SEGMENT_SUMS,
  KERNEL_DROPOUT,
  KERNEL_SCATTER_ROWS,
  KERNEL_SUM_OF_SQUARES,
  KERNEL_GRADIENT_NORM,
  KERNEL_ADAM,
  // Of other architectures:
  KERNEL_ADD_POSITION,
  KERNEL_POSITION_GRADIENT,
  KERNEL_ATTENTION,
  KERNEL_ATTENTION_GRADIENT,
  KERNEL_LINEAR_ATTENTION,
  KERNEL_LINEAR_ATTENTION_GRADIENT,
  KERNEL_AFT,
  KERNEL_AFT_GRADIENT,
  KERNEL_AFT_BIAS_GRADIENT,
  KERNEL_PREVIOUS_ROWS,
  KERNEL_ELMAN,
  KERNEL_ELMAN_GRADIENT,
  KERNEL_GRU,
  KERNEL_GRU_GRADIENT,
  // Of loading:
  KERNEL_CONVERT_WEIGHTS,
};

enum dtype { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_Q8, DTYPE_Q4, DTYPE_F64 };

enum activation { ACTIVATION_NONE, ACTIVATION_SIGMOID, ACTIVATION_RELU_SQUARED };

// Whether threads meet after a record: BARRIER_FEW_ROWS_APART unless there are fewer rows than threads.
enum barrier_kind { BARRIER_NEVER, BARRIER_ALWAYS, BARRIER_FEW_ROWS_APART };

enum unary { UNARY_SIGMOID, UNARY_RELU_SQUARED, UNARY_EXP, UNARY_NEGATE, UNARY_ELU_PLUS_ONE, UNARY_SCALE };

enum binary { BINARY_ADD, BINARY_MULTIPLY, BINARY_SIGMOID_GRADIENT, BINARY_RELU_SQUARED_GRADIENT, BINARY_ELU_PLUS_ONE_GRADIENT };

// How many rows a value has: one for each token of the pass, one for each selected token, or the same in every pass.
enum row_set { ROWS_TOKENS, ROWS_SELECTED, ROWS_FIXED };

// One operation; 192 bytes. Each kernel says which fields it reads.
struct record {
  uint32_t kernel;
  uint32_t barrier_after;  // enum barrier_kind: whether all threads meet here before the next record
  uint32_t row_set;        // of the output
  uint32_t dtype;          // of the weight matrix
  uint32_t width;          // floats in a row of the output
  uint32_t inputs;         // floats in a row of the input
  uint32_t function;       // activation, unary or binary; the type that weights are quantized to
  uint32_t count;          // outputs of a token shift; what else is counted
  float factor;            // the epsilon of a norm; what else is a number
  uint32_t rows;           // of the output, where they are fixed
  uint32_t state[4];       // offsets of state vectors in a sequence's block, in floats
  uint32_t input_row_set;  // of the input, where a gradient sums over its rows
  uint32_t reserved;
  uint64_t address[16];  // of weights and buffers
};

// Consecutive rows of one sequence.
struct segment {
  uint32_t start;
  uint32_t count;
  uint64_t state;       // address of the sequence's block as it is before these rows
  uint64_t next_state;  // where it is left as it is after them; often the same
};

struct barrier {
  uint32_t arrived;
  uint32_t generation;
  uint32_t sleepers;
  uint32_t reserved;
};

// How a pass went. Anything but PASS_COMPLETE makes every thread leave before the next record. The order is that of
// passStatuses in run-pass.ts.
enum pass_status {
  PASS_COMPLETE,
  PASS_STOPPED,
  PASS_WRONG_SEGMENT,
  PASS_WRONG_TOKEN,
  PASS_WRONG_ROW,
  PASS_WRONG_TARGET,
  PASS_WRONG_ADJUSTMENT,
};

// One walk over the records; 88 bytes.
struct pass {
  uint64_t records;
  uint64_t tokens;    // int32 token ids
  uint64_t selected;  // int32 row numbers
  uint64_t segments;
  uint64_t targets;  // int32 token ids, one for each selected row: what should have been predicted there
  uint32_t record_count;
  uint32_t token_count;
  uint32_t selected_count;
  uint32_t segment_count;
  uint32_t thread_count;
  uint32_t seed;    // of what dropout leaves out
  uint32_t status;  // enum pass_status; JavaScript sets it to 0 before a pass and reads it afterwards
  uint32_t reserved;
  struct barrier barrier;
};

// The functions that a level of instruction sets exports carry its name.
#if defined(LEVEL)
#define LEVEL_JOIN(name, level) name##_##level
#define LEVEL_EXPAND(name, level) LEVEL_JOIN(name, level)
#define LEVEL_NAME(name) LEVEL_EXPAND(name, LEVEL)
#else
#define LEVEL_NAME(name) name
#endif

// Runs one thread's share of all records. Every thread of the pass must call it.
void LEVEL_NAME(run_pass)(struct pass* pass, uint32_t thread);

// A thread's share of `total` items, in multiples of `grain` (the last share takes the rest).
struct range {
  uint32_t begin;
  uint32_t end;
};

// The same of elements, of which a matrix may have more than 2^32.
struct element_range {
  uint64_t begin;
  uint64_t end;
};

static inline struct element_range share_of_elements(uint64_t total, uint32_t grain, uint32_t thread, uint32_t threads) {
  uint64_t grains = (total + grain - 1) / grain;
  uint64_t begin = grains * thread / threads * grain;
  uint64_t end = grains * (thread + 1) / threads * grain;
  return (struct element_range){begin < total ? begin : total, end < total ? end : total};
}

static inline struct range share_of(uint32_t total, uint32_t grain, uint32_t thread, uint32_t threads) {
  struct element_range share = share_of_elements(total, grain, thread, threads);
  return (struct range){(uint32_t)share.begin, (uint32_t)share.end};
}

// Channels are shared in this grain by every kernel that works channel by channel, so that a thread has the same ones in each
// and need not wait for the others between them. It is also a whole number of vectors, cache lines and quantized blocks.
enum { channel_grain = 64 };

static inline struct range channels_of(uint32_t width, uint32_t thread, uint32_t threads) {
  return share_of(width, channel_grain, thread, threads);
}

// A cache line, for kernels before and after which threads meet in any case: more threads find something to do.
enum { fine_channel_grain = 16 };

static inline struct range fine_channels_of(uint32_t width, uint32_t thread, uint32_t threads) {
  return share_of(width, fine_channel_grain, thread, threads);
}

// Sequences and blocks of channels, for kernels whose work on one of each does not concern the others.
struct unit {
  uint32_t segment;
  struct range channels;
};

static inline uint32_t unit_count(uint32_t segments, uint32_t width) {
  return segments * ((width + fine_channel_grain - 1) / fine_channel_grain);
}

static inline struct unit unit_at(uint32_t index, uint32_t width) {
  uint32_t blocks = (width + fine_channel_grain - 1) / fine_channel_grain;
  uint32_t begin = index % blocks * fine_channel_grain, end = begin + fine_channel_grain;
  return (struct unit){index / blocks, {begin, end < width ? end : width}};
}

static inline uint32_t rows_of(const struct pass* pass, uint32_t row_set, uint32_t fixed) {
  return row_set == ROWS_TOKENS ? pass->token_count : row_set == ROWS_SELECTED ? pass->selected_count : fixed;
}

static inline uint32_t row_count(const struct pass* pass, const struct record* record) {
  return rows_of(pass, record->row_set, record->rows);
}

// Rows that a gradient sums over.
static inline uint32_t input_row_count(const struct pass* pass, const struct record* record) {
  return rows_of(pass, record->input_row_set, 0);
}

// A count of tokens that a state holds as a float. A state may come from a file, so it need not be one: NaN is taken
// as 0, and what is past the limit as the limit.
static inline uint32_t count_in_state(float value, uint32_t limit) {
  return !(value > 0) ? 0 : value < (float)limit ? (uint32_t)value : limit;
}

// Positions past this are all alike to whatever takes them.
enum { largest_position = 1 << 30 };

static inline float* floats(uint64_t address) { return (float*)(uintptr_t)address; }
