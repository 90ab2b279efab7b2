// Rows picked by number: the embedding of each token, and the rows whose logits are wanted.

#include "block_rows.h"
#include "kernels.h"
#include "load_weights.h"
#include "simd.h"

// out[t] = table[token[t]], to float32.
//   address: table [matrix_rows, width] of dtype, any, out [tokens, width]
static void embedding_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const int32_t* tokens = (const int32_t*)(uintptr_t)pass->tokens;
  float* out = floats(record->address[1]);
  uint32_t width = record->width;
  struct range rows = share_of(pass->token_count, 1, thread, pass->thread_count);
  for (uint32_t t = rows.begin; t < rows.end; t++) {
    uint64_t start = (uint64_t)tokens[t] * width;
    float* row = out + (uint64_t)t * width;
    if (record->dtype >= DTYPE_Q8) {
      const void* table = (const void*)(uintptr_t)record->address[0];
      if (record->dtype >= DTYPE_Q4K) row_of_supers(table, record->dtype, (uint32_t)tokens[t], width, row);
      else row_of_pairs(table, record->dtype, (uint32_t)tokens[t], width, row);
    } else if (record->dtype == DTYPE_F32) {
      const float* table = floats(record->address[0]) + start;
      for (uint32_t c = 0; c < width; c++) row[c] = table[c];
    } else {
      const uint16_t* table = (const uint16_t*)(uintptr_t)record->address[0] + start;
      for (uint32_t c = 0; c < width; c++) {
        row[c] = record->dtype == DTYPE_BF16 ? bf16_to_float(table[c]) : f16_to_float(table[c]);
      }
    }
  }
}

// out[s] = x[selected[s]]
//   address: x [tokens, width], out [selected, width]
static void select_rows_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const int32_t* selected = (const int32_t*)(uintptr_t)pass->selected;
  uint32_t width = record->width;
  struct range rows = share_of(pass->selected_count, 1, thread, pass->thread_count);
  for (uint32_t s = rows.begin; s < rows.end; s++) {
    const float* from = floats(record->address[0]) + (uint64_t)selected[s] * width;
    float* to = floats(record->address[1]) + (uint64_t)s * width;
    for (uint32_t c = 0; c < width; c++) to[c] = from[c];
  }
}
