// What JavaScript hands to the kernels: a flat list of records, one an operation, and the pass they are run for. The same
// layout is written by src/backends/kernel/record.ts; the two change together.
#pragma once

#include <stdint.h>

// Kernels by number.
#define KERNEL(name, function) KERNEL_##name,
enum kernel {
#include "all_operations.def"
};
#undef KERNEL

enum dtype { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_Q8, DTYPE_Q4, DTYPE_Q4K, DTYPE_Q5K, DTYPE_Q6K, DTYPE_F64 };

enum activation { ACTIVATION_NONE, ACTIVATION_SIGMOID, ACTIVATION_RELU_SQUARED, ACTIVATION_TANH };

// Whether all threads wait for each other after a record: BARRIER_FEW_ROWS_APART unless there are fewer rows than threads.
enum barrier_kind { BARRIER_NEVER, BARRIER_ALWAYS, BARRIER_FEW_ROWS_APART };

// How many rows a value has: one for each token of the pass, one for each selected token, or the same in every pass.
enum row_set { ROWS_TOKENS, ROWS_SELECTED, ROWS_FIXED };

// A number that an operation is given: each kernel says which of the two it reads.
union attribute {
  uint32_t count;
  float number;
};

enum { most_attributes = 8, most_states = 8 };

// One operation: 128 bytes, then its addresses, then its program where it has one. Everything is in the order of the operation's
// descriptor in src/graph; each kernel's comment names it.
struct record {
  uint32_t size;  // of all of it, in bytes; a multiple of 64
  uint32_t kernel;
  uint32_t barrier_before;  // enum barrier_kind: how the record before it ended
  uint32_t barrier_after;   // and how this one ends
  uint32_t row_set;         // of the outputs
  uint32_t rows;            // of the outputs, where they are fixed
  uint32_t width;           // floats in a row of the first output
  uint32_t input_row_set;   // of the first input
  uint32_t input_rows;      // of the first input, where they are fixed
  uint32_t inputs;          // floats in a row of the first input
  uint32_t dtype;           // of the first matrix
  uint32_t matrix_rows;
  uint32_t matrix_columns;
  uint32_t activation;   // what a product ends with
  uint32_t list_length;  // operands in a list
  uint32_t program;      // where it begins, in bytes from the record's start
  union attribute attribute[most_attributes];
  uint32_t state[most_states];  // offsets of states in a sequence's block, in floats
  // Of inputs, vectors, matrices, then a factor and a summand where a product ends with them, then outputs; 0 for what is absent.
  uint64_t address[];
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

// One walk over the records; 104 bytes.
struct pass {
  uint64_t records;
  uint64_t tokens;    // int32 token ids
  uint64_t selected;  // int32 row numbers
  uint64_t segments;
  uint64_t targets;  // int32 token ids, one for each selected row: what should have been predicted there
  uint32_t record_count;
  union {
    struct {
      uint32_t token_count;
      uint32_t selected_count;
    };
    uint32_t counted_rows[2];  // the same, by row set
  };
  uint32_t segment_count;
  uint32_t thread_count;
  uint32_t seed;    // of what dropout leaves out
  uint32_t status;  // enum pass_status; JavaScript sets it to 0 before a pass and reads it afterwards
  uint32_t has_tiles;  // whether products may use tiles (tiles.h); a pool sets it
  struct barrier barrier;
  uint64_t claims;  // a counter for every 64 bytes of records, zero before a pass, or 0 (claims.h)
  // Of a step of training that several processes share: the targets of all of them, and how many rows of tokens come before these.
  uint32_t target_count;
  uint32_t first_row;
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

// Heads of `size` channels each, of which a thread has as many as it has of channels where the grain of those is whole heads, as
// with 64, 32 or 16 of them: then it need not wait for others between kernels that share channels and those that share heads.
// Elsewhere heads are shared by themselves. The same condition is in src/graph/fusion.ts.
static inline struct range heads_of(uint32_t heads, uint32_t size, uint32_t thread, uint32_t threads) {
  if (channel_grain % size != 0) return share_of(heads, 1, thread, threads);
  struct range channels = channels_of(heads * size, thread, threads);
  return (struct range){channels.begin / size, channels.end / size};
}

// A cache line, for kernels before and after which there is a barrier in any case: more threads find something to do.
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

// By an index, not by cases: the WebAssembly compiler of Node 20 for code that has just begun to run (Liftoff of V8 11.3) took
// those of a branch table for one another here, so that threads did not wait after a norm of selected rows. Node 22 does not.
static inline uint32_t rows_of(const struct pass* pass, uint32_t row_set, uint32_t fixed) {
  return row_set == ROWS_FIXED ? fixed : pass->counted_rows[row_set];
}

static inline uint32_t row_count(const struct pass* pass, const struct record* record) {
  return rows_of(pass, record->row_set, record->rows);
}

// Rows that a gradient sums over.
static inline uint32_t input_row_count(const struct pass* pass, const struct record* record) {
  return rows_of(pass, record->input_row_set, record->input_rows);
}

static inline const struct record* record_after(const struct record* record) {
  return (const struct record*)((const char*)record + record->size);
}

// A count of tokens that a state holds as a float. A state may come from a file, so it need not be one: NaN is taken
// as 0, and what is past the limit as the limit.
static inline uint32_t count_in_state(float value, uint32_t limit) {
  return !(value > 0) ? 0 : value < (float)limit ? (uint32_t)value : limit;
}

// Positions past this are all alike to whatever takes them.
enum { largest_position = 1 << 30 };

static inline float* floats(uint64_t address) { return (float*)(uintptr_t)address; }
