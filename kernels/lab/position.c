// Learned positions, which the Transformer and linear attention add to their embeddings.

#include "kernels.h"
#include "load_weights.h"

// out[t] = x[t] + table[position], where positions continue those in the state: one for each channel, all the same, so that
// threads, which share the channels, need not wait for each other.
//   address: x [tokens, width], table [matrix_rows, width] of dtype, out [tokens, width]
//   state: position [width]
static void add_position_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  uint32_t width = record->width;
  struct range channels = channels_of(width, thread, pass->thread_count);
  if (channels.begin == channels.end) return;
  for (uint32_t s = 0; s < pass->segment_count; s++) {
    uint32_t first = count_in_state((floats(segments[s].state) + record->state[0])[channels.begin], largest_position);
    for (uint32_t t = 0; t < segments[s].count; t++) {
      uint32_t position = first + t < record->matrix_rows ? first + t : record->matrix_rows - 1;
      uint64_t row = (uint64_t)position * width;
      uint64_t at = (uint64_t)(segments[s].start + t) * width;
      for (uint32_t c = channels.begin; c < channels.end; c++) {
        float place = load_weight((const void*)(uintptr_t)record->address[1], record->dtype, row + c);
        floats(record->address[2])[at + c] = floats(record->address[0])[at + c] + place;
      }
    }
    float* next = floats(segments[s].next_state) + record->state[0];
    for (uint32_t c = channels.begin; c < channels.end; c++) next[c] = (float)(first + segments[s].count);
  }
}

// The gradient of add_position_forward for its table.
//   address: dout [tokens, width], out [rows, width]
//   state: position [width]
static void position_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  uint32_t width = record->width;
  float* out = floats(record->address[1]);
  struct range channels = fine_channels_of(width, thread, pass->thread_count);
  if (channels.begin == channels.end) return;
  for (uint32_t p = 0; p < record->rows; p++) {
    for (uint32_t c = channels.begin; c < channels.end; c++) out[(uint64_t)p * width + c] = 0;
  }
  for (uint32_t s = 0; s < pass->segment_count; s++) {
    uint32_t first = count_in_state((floats(segments[s].state) + record->state[0])[channels.begin], largest_position);
    for (uint32_t t = 0; t < segments[s].count; t++) {
      uint32_t position = first + t < record->rows ? first + t : record->rows - 1;
      const float* from = floats(record->address[0]) + (uint64_t)(segments[s].start + t) * width;
      for (uint32_t c = channels.begin; c < channels.end; c++) out[(uint64_t)position * width + c] += from[c];
    }
  }
}
