// Products with matrices of which there is a second form, input by input (by_input.h). Where few elements of the rows are not
// zero, as in decoding, it is taken, and the weights of the others are not read. Which of the two is taken changes no bit of the
// result.

#include "claims.h"
#include "matmul.h"
#include "matmul_sparse_blocks.c"
#include "matmul_sparse_floats.c"

// The second form is faster where at most so many eighths of the elements of a row are not zero; of several rows, each of which
// takes its own, of all together.
enum { most_live_floats = 3, most_live_integers = 2 };

// Threads' shares of a sparse product: whole cache lines of every type, and not so few outputs that what is found of x costs more
// than their sums.
enum { sparse_grain = 128 };

static int is_sparse(const struct record* record, uint32_t rows) {
  const uint64_t inputs = record->inputs;
  const uint64_t most = inputs * (is_float(record->dtype) ? most_live_floats : most_live_integers) / 8;
  uint64_t live = 0;
  for (uint32_t t = 0; t < rows && live <= most; t++) {
    if (is_float(record->dtype)) {
      const float* x = floats(record->address[0]) + t * inputs;
      for (uint32_t i = 0; i < inputs; i++) live += x[i] != 0;
    } else {
      const int8_t* x = (const int8_t*)(uintptr_t)record->address[0] + t * quantized_row_size(pairs_of(record->inputs));
      for (uint32_t i = 0; i < inputs; i++) live += x[i] != 0;
    }
  }
  return live <= most;
}

static void multiply_sparse(const struct record* record, const uint8_t* by_input, struct range outputs, uint32_t rows) {
  for (uint32_t begin = outputs.begin; begin < outputs.end; begin += sparse_outputs) {
    struct range part = {begin, outputs.end - begin < sparse_outputs ? outputs.end : begin + sparse_outputs};
    if (is_float(record->dtype)) multiply_sparse_floats(record, by_input, part, rows);
    else multiply_sparse_blocks(record, by_input, part, rows);
  }
  finish_outputs(record, outputs, (struct range){0, rows});
}

// As matmul_forward
//   address: x, weight, the same input by input, multiplier, addend, out
static void sparse_matmul_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  // The record of the product that it would be without the second form.
  const uint64_t *from = record->address, address[] = {from[0], from[1], from[3], from[4], from[5]};
  _Alignas(64) char fields[sizeof(struct record) + sizeof address];
  __builtin_memcpy(fields, record, sizeof(struct record));
  __builtin_memcpy(fields + sizeof(struct record), address, sizeof address);
  const struct record* product = (const struct record*)fields;
  const uint8_t* by_input = (const uint8_t*)(uintptr_t)from[2];
  const uint32_t rows = row_count(pass, record);
  const int sparse = is_sparse(product, rows);
  const uint32_t grain = sparse ? sparse_grain : output_grain;
  struct range outputs = own_part_of(pass, record->width, grain, thread);
  do {
    if (sparse) multiply_sparse(product, by_input, outputs, rows);
    else multiply_outputs(pass, product, outputs, (struct range){0, rows});
  } while (claim_piece(pass, record, record->width, grain, &outputs));
}
