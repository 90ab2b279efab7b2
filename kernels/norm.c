// Layer normalization (arXiv 1607.06450, equation 4), over each row.

#include "kernels.h"
#include "simd.h"

// out[t] = (x[t] - mean) / sqrt(variance + epsilon) * weight + bias, with the biased variance.
//   address: x [rows, width], weight [width], bias [width], out [rows, width]
static void layer_norm_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const float* weight = floats(record->address[1]);
  const float* bias = floats(record->address[2]);
  uint32_t width = record->width;
  struct range rows = share_of(row_count(pass, record), 1, thread, pass->thread_count);
  for (uint32_t t = rows.begin; t < rows.end; t++) {
    const float* x = floats(record->address[0]) + (uint64_t)t * width;
    float* out = floats(record->address[3]) + (uint64_t)t * width;
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
    float scale = 1 / __builtin_sqrtf(variance / (float)width + record->epsilon);
    for (uint32_t c = 0; c < width; c += lanes) {
      uint32_t left = width - c;
      vfloat normal = (load_up_to(x + c, left) - mean) * scale;
      store_up_to(out + c, normal * load_up_to(weight + c, left) + load_up_to(bias + c, left), left);
    }
  }
}
