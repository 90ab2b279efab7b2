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
    struct moments moments = moments_of(x, width, record->factor);
    for (uint32_t c = channels.begin; c < channels.end; c += lanes) {
      uint32_t left = channels.end - c;
      vfloat normal = (load_up_to(x + c, left) - moments.mean) * moments.scale;
      store_up_to(out + c, normal * load_up_to(weight + c, left) + load_up_to(bias + c, left), left);
    }
  }
}

// out[t] = mean and scale of x[t], where scale is 1 / sqrt(variance + epsilon).
//   address: x [rows, inputs], out [rows, 2]
static void row_moments_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  struct range rows = share_of(row_count(pass, record), 16, thread, pass->thread_count);
  for (uint32_t t = rows.begin; t < rows.end; t++) {
    struct moments moments = moments_of(floats(record->address[0]) + (uint64_t)t * record->inputs, record->inputs, record->factor);
    float* out = floats(record->address[1]) + 2 * (uint64_t)t;
    out[0] = moments.mean;
    out[1] = moments.scale;
  }
}

// The gradient of layer_norm_forward for its input. With n[t] = (x[t] - mean) * scale and g[t] = dout[t] * weight:
//   dx[t] = scale * (g[t] - mean of g[t] - n[t] * mean of (g[t] * n[t]))
//   address: x [rows, width], weight [width], dout [rows, width], dx [rows, width]
static void layer_norm_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  const float* weight = floats(record->address[1]);
  uint32_t width = record->width;
  struct range rows = share_of(row_count(pass, record), 1, thread, pass->thread_count);
  for (uint32_t t = rows.begin; t < rows.end; t++) {
    const float* x = floats(record->address[0]) + (uint64_t)t * width;
    const float* dout = floats(record->address[2]) + (uint64_t)t * width;
    float* dx = floats(record->address[3]) + (uint64_t)t * width;
    struct moments moments = moments_of(x, width, record->factor);
    vfloat total = {0}, product = {0};
    for (uint32_t c = 0; c < width; c += lanes) {
      uint32_t left = width - c;
      vfloat g = load_up_to(dout + c, left) * load_up_to(weight + c, left);
      total += g;
      product += g * ((load_up_to(x + c, left) - moments.mean) * moments.scale);
    }
    float mean = sum(total) / (float)width, slope = sum(product) / (float)width;
    for (uint32_t c = 0; c < width; c += lanes) {
      uint32_t left = width - c;
      vfloat g = load_up_to(dout + c, left) * load_up_to(weight + c, left);
      vfloat normal = (load_up_to(x + c, left) - moments.mean) * moments.scale;
      store_up_to(dx + c, moments.scale * (g - mean - normal * slope), left);
    }
  }
}

// The gradient of layer_norm_forward for its weight: out = sum over t of dout[t] * (x[t] - mean) * scale.
//   address: x [rows, width], moments [rows, 2], dout [rows, width], out [width]
static void layer_norm_weight_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  const float* moments = floats(record->address[1]);
  uint32_t width = record->width, rows = input_row_count(pass, record);
  struct range channels = fine_channels_of(width, thread, pass->thread_count);
  for (uint32_t c = channels.begin; c < channels.end; c += lanes) {
    uint32_t left = channels.end - c;
    vfloat total = {0};
    for (uint32_t t = 0; t < rows; t++) {
      uint64_t at = (uint64_t)t * width + c;
      vfloat normal = (load_up_to(floats(record->address[0]) + at, left) - moments[2 * t]) * moments[2 * t + 1];
      total += load_up_to(floats(record->address[2]) + at, left) * normal;
    }
    store_up_to(floats(record->address[3]) + c, total, left);
  }
}
