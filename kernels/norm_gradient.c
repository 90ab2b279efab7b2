// The gradients of layer norm, and of norms of heads.

#include "kernels.h"
#include "simd.h"

// out[t] = mean and scale of x[t], where scale is 1 / sqrt(variance + epsilon).
//   address: x [rows, inputs], out [rows, 2]
static void row_moments_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  struct range rows = share_of(row_count(pass, record), 16, thread, pass->thread_count);
  for (uint32_t t = rows.begin; t < rows.end; t++) {
    const float* x = floats(record->address[0]) + (uint64_t)t * record->inputs;
    struct moments moments = moments_of(x, record->inputs, record->attribute[0].number);
    float* out = floats(record->address[1]) + 2 * (uint64_t)t;
    out[0] = moments.mean;
    out[1] = moments.scale;
  }
}

// The gradient of layer_norm_forward for its input. With n[t] = (x[t] - mean) * scale and g[t] = dout[t] * weight:
//   dx[t] = scale * (g[t] - mean of g[t] - n[t] * mean of (g[t] * n[t]))
//   address: x [rows, width], weight [width], dout [rows, width], dx [rows, width]
static void layer_norm_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  const float* weight = floats(record->address[2]);
  uint32_t width = record->width;
  struct range rows = share_of(row_count(pass, record), 1, thread, pass->thread_count);
  for (uint32_t t = rows.begin; t < rows.end; t++) {
    const float* x = floats(record->address[0]) + (uint64_t)t * width;
    const float* dout = floats(record->address[1]) + (uint64_t)t * width;
    float* dx = floats(record->address[3]) + (uint64_t)t * width;
    struct moments moments = moments_of(x, width, record->attribute[0].number);
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

// The gradient of head_norm_forward for x: mean and scale both depend on every channel of the head.
static void norm_of_head_gradient(const float* x, const float* dout, float* dx, uint32_t size, float epsilon) {
  struct moments moments = moments_of(x, size, epsilon);
  vfloat totals = {0}, products = {0};
  for (uint32_t c = 0; c < size; c += lanes) {
    vfloat gradient = load_up_to(dout + c, size - c);
    totals += gradient;
    products += gradient * ((load_up_to(x + c, size - c) - moments.mean) * moments.scale);
  }
  float total = sum(totals) / (float)size, product = sum(products) / (float)size;
  for (uint32_t c = 0; c < size; c += lanes) {
    vfloat normal = (load_up_to(x + c, size - c) - moments.mean) * moments.scale;
    store_up_to(dx + c, moments.scale * (load_up_to(dout + c, size - c) - total - normal * product), size - c);
  }
}

static void head_norm_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  apply_to_heads(pass, record, thread, 1, norm_of_head_gradient);
}

// The gradient of head_normalize_forward for x: dx = scale * (dout - x * (x . dout) * scale^2), the second term only where the
// length counts.
static void normalize_head_gradient(const float* x, const float* dout, float* dx, uint32_t size, float epsilon) {
  float scale = inverse_length_of(x, size, epsilon);
  vfloat products = {0};
  for (uint32_t c = 0; c < size; c += lanes) products += load_up_to(x + c, size - c) * load_up_to(dout + c, size - c);
  float along = scale < 1 / epsilon ? sum(products) * scale * scale : 0;
  for (uint32_t c = 0; c < size; c += lanes) {
    store_up_to(dx + c, scale * (load_up_to(dout + c, size - c) - along * load_up_to(x + c, size - c)), size - c);
  }
}

static void head_normalize_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  apply_to_heads(pass, record, thread, 1, normalize_head_gradient);
}
