// Gradients of rows that were looked up, selected, or shared by all: sums over the rows that each was. And each token's row
// before, which the gradients of recurrent steps take.

#include "kernels.h"
#include "simd.h"

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
//   address: x [tokens, inputs], out [width]; attribute: number of the part
static void segment_sums(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  struct range channels = fine_channels_of(record->width, thread, pass->thread_count);
  for (uint32_t c = channels.begin; c < channels.end; c++) {
    float total = 0;
    for (uint32_t s = 0; s < pass->segment_count; s++) {
      const float* row = floats(record->address[0]) + (uint64_t)segments[s].start * record->inputs;
      total += row[(uint64_t)record->attribute[0].count * record->width + c];
    }
    floats(record->address[1])[c] = total;
  }
}

static const float* row_before(const struct segment* segment, const struct record* record, const float* rows, uint32_t t) {
  return t > 0 ? rows + (uint64_t)(segment->start + t - 1) * record->width : floats(segment->state) + record->state[0];
}

// out[t] = x[t - 1], at a segment's start the state.
//   address: x [tokens, width], out [tokens, width]; state: previous [width]
static void previous_rows_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  struct range units = share_of(pass->segment_count, 1, thread, pass->thread_count);
  for (uint32_t s = units.begin; s < units.end; s++) {
    for (uint32_t t = 0; t < segments[s].count; t++) {
      const float* from = row_before(&segments[s], record, floats(record->address[0]), t);
      float* to = floats(record->address[1]) + (uint64_t)(segments[s].start + t) * record->width;
      for (uint32_t c = 0; c < record->width; c++) to[c] = from[c];
    }
  }
}
