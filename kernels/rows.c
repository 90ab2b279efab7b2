// Rows picked by number: the embedding of each token, and the rows whose logits are wanted; rows by position;
// and the gradients of these.

#include "kernels.h"
#include "load_weights.h"
#include "simd.h"

// out[t] = table[token[t]], to float32.
//   address: table [inputs, width] of dtype, out [tokens, width]
static void embedding_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const int32_t* tokens = (const int32_t*)(uintptr_t)pass->tokens;
  float* out = floats(record->address[1]);
  uint32_t width = record->width;
  struct range rows = share_of(pass->token_count, 1, thread, pass->thread_count);
  for (uint32_t t = rows.begin; t < rows.end; t++) {
    uint64_t start = (uint64_t)tokens[t] * width;
    float* row = out + (uint64_t)t * width;
    if (record->dtype == DTYPE_F32) {
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

// The gradient of embedding_forward: out[v] = sum over the t with token[t] = v of dout[t].
//   address: dout [tokens, width], out [rows, width]
static void embedding_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  const int32_t* tokens = (const int32_t*)(uintptr_t)pass->tokens;
  float* out = floats(record->address[1]);
  uint32_t width = record->width;
  struct range channels = fine_channels_of(width, thread, pass->thread_count);
  for (uint32_t v = 0; v < record->rows; v++) {
    for (uint32_t c = channels.begin; c < channels.end; c++) out[(uint64_t)v * width + c] = 0;
  }
  for (uint32_t t = 0; t < pass->token_count; t++) {
    const float* from = floats(record->address[0]) + (uint64_t)t * width;
    float* to = out + (uint64_t)tokens[t] * width;
    for (uint32_t c = channels.begin; c < channels.end; c++) to[c] += from[c];
  }
}

// The gradient of select_rows_forward: out[selected[s]] = dout[s], 0 in all other rows.
//   address: dout [selected, width], out [tokens, width]
static void scatter_rows(const struct pass* pass, const struct record* record, uint32_t thread) {
  const int32_t* selected = (const int32_t*)(uintptr_t)pass->selected;
  uint32_t width = record->width;
  struct range rows = share_of(pass->token_count, 1, thread, pass->thread_count);
  // Selected rows come in ascending order.
  uint32_t s = 0;
  while (s < pass->selected_count && (uint32_t)selected[s] < rows.begin) s++;
  for (uint32_t t = rows.begin; t < rows.end; t++) {
    int found = s < pass->selected_count && (uint32_t)selected[s] == t;
    const float* from = floats(record->address[0]) + (uint64_t)s * width;
    float* to = floats(record->address[1]) + (uint64_t)t * width;
    for (uint32_t c = 0; c < width; c++) to[c] = found ? from[c] : 0;
    s += found;
  }
}

// out = sum over t of x[t]: the gradient of whatever is added to every row.
//   address: x [rows, width], out [width]
static void column_sums(const struct pass* pass, const struct record* record, uint32_t thread) {
  uint32_t width = record->width, rows = input_row_count(pass, record);
  struct range channels = fine_channels_of(width, thread, pass->thread_count);
  for (uint32_t c = channels.begin; c < channels.end; c += lanes) {
    uint32_t left = channels.end - c;
    vfloat total = {0};
    for (uint32_t t = 0; t < rows; t++) total += load_up_to(floats(record->address[0]) + (uint64_t)t * width + c, left);
    store_up_to(floats(record->address[1]) + c, total, left);
  }
}

// out = sum over segments of a part of the first row of x in each: of what a gradient found for each sequence by itself.
//   address: x [tokens, inputs], out [width]; count: where the part begins
static void segment_sums(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  struct range channels = fine_channels_of(record->width, thread, pass->thread_count);
  for (uint32_t c = channels.begin; c < channels.end; c++) {
    float total = 0;
    for (uint32_t s = 0; s < pass->segment_count; s++) {
      total += floats(record->address[0])[(uint64_t)segments[s].start * record->inputs + record->count + c];
    }
    floats(record->address[1])[c] = total;
  }
}

// out[t] = x[t] + table[position], where positions go on from those in the state: one for each channel, all the same, so that
// threads, which share the channels, need not wait for each other.
//   address: x [tokens, width], table [inputs, width] of dtype, out [tokens, width]
//   state: position [width]
static void add_position_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  uint32_t width = record->width;
  struct range channels = channels_of(width, thread, pass->thread_count);
  if (channels.begin == channels.end) return;
  for (uint32_t s = 0; s < pass->segment_count; s++) {
    uint32_t first = count_in_state((floats(segments[s].state) + record->state[0])[channels.begin], largest_position);
    for (uint32_t t = 0; t < segments[s].count; t++) {
      uint32_t position = first + t < record->inputs ? first + t : record->inputs - 1;
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
