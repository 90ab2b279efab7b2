// Layer normalization (arXiv 1607.06450, equation 4), over each row.

#include "kernels.h"
#include "simd.h"

struct moments {
  float mean;
  float scale;
};

static struct moments moments_of(const float* x, uint32_t width, float epsilon) {
  vfloat total = {0};
  for (uint32_t c = 0; c < width; c += lanes) total += load_up_to(x + c, width - c);
  float mean = sum(total) / (float)width;
  vfloat squares = {0};
  uint32_t whole = width - width % lanes;
  for (uint32_t c = 0; c < whole; c += lanes) {
    vfloat difference = load(x + c) - mean;
    squares += difference * difference;
  }
  float variance = sum(squares);
  for (uint32_t c = whole; c < width; c++) variance += (x[c] - mean) * (x[c] - mean);
  return (struct moments){mean, 1 / __builtin_sqrtf(variance / (float)width + epsilon)};
}

// out[t] = (x[t] - mean) / sqrt(variance + epsilon) * weight + bias, with the biased variance.
//   address: x [rows, width], weight [width], bias [width], out [rows, width]
// Threads share the rows; where there are fewer rows than threads the channels, and each finds the moments of all rows: that
// is quicker than to wait for one who does.
static void layer_norm_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const float* weight = floats(record->address[1]);
  const float* bias = floats(record->address[2]);
  uint32_t width = record->width;
  struct range rows = {0, row_count(pass, record)}, channels = {0, width};
  if (rows.end < pass->thread_count) channels = channels_of(width, thread, pass->thread_count);
  else rows = share_of(rows.end, 1, thread, pass->thread_count);
  for (uint32_t t = rows.begin; t < rows.end; t++) {
    const float* x = floats(record->address[0]) + (uint64_t)t * width;
    float* out = floats(record->address[3]) + (uint64_t)t * width;
    struct moments moments = moments_of(x, width, record->attribute[0].number);
    for (uint32_t c = channels.begin; c < channels.end; c += lanes) {
      uint32_t left = channels.end - c;
      vfloat normal = (load_up_to(x + c, left) - moments.mean) * moments.scale;
      store_up_to(out + c, normal * load_up_to(weight + c, left) + load_up_to(bias + c, left), left);
    }
  }
}
