// Reductions over heads: each row is parts of equal width. Threads share the heads of all rows.

#include "kernels.h"
#include "simd.h"

static struct range heads_of(const struct pass* pass, const struct record* record, uint32_t thread) {
  return share_of(row_count(pass, record) * record->attribute[0].count, 1, thread, pass->thread_count);
}

// out[t][h] = sum over the channels c of head h of x[t][c]
//   address: x [rows, inputs], out [rows, heads]; attribute: heads
static void head_sum_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  uint32_t size = record->inputs / record->attribute[0].count;
  struct range heads = heads_of(pass, record, thread);
  for (uint32_t h = heads.begin; h < heads.end; h++) {
    const float* x = floats(record->address[0]) + (uint64_t)h * size;
    vfloat total = {0};
    for (uint32_t c = 0; c < size; c += lanes) total += load_up_to(x + c, size - c);
    floats(record->address[1])[h] = sum(total);
  }
}

// out = (x - mean) / sqrt(variance + epsilon) over each head (group normalization, arXiv 1803.08494, equation 1, without its affine
// part), with the biased variance.
//   address: x, out [rows, width]; attribute: heads, epsilon
static void head_norm_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  uint32_t size = record->width / record->attribute[0].count;
  struct range heads = heads_of(pass, record, thread);
  for (uint32_t h = heads.begin; h < heads.end; h++) {
    const float* x = floats(record->address[0]) + (uint64_t)h * size;
    float* out = floats(record->address[1]) + (uint64_t)h * size;
    struct moments moments = moments_of(x, size, record->attribute[1].number);
    for (uint32_t c = 0; c < size; c += lanes) {
      store_up_to(out + c, (load_up_to(x + c, size - c) - moments.mean) * moments.scale, size - c);
    }
  }
}

// 1 / max(|x|, epsilon)
static float inverse_length_of(const float* x, uint32_t size, float epsilon) {
  vfloat squares = {0};
  for (uint32_t c = 0; c < size; c += lanes) {
    vfloat value = load_up_to(x + c, size - c);
    squares += value * value;
  }
  float length = __builtin_sqrtf(sum(squares));
  return 1 / (length > epsilon ? length : epsilon);
}

// out = x / max(|x|, epsilon) over each head
//   address: x, out [rows, width]; attribute: heads, epsilon
static void head_normalize_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  uint32_t size = record->width / record->attribute[0].count;
  struct range heads = heads_of(pass, record, thread);
  for (uint32_t h = heads.begin; h < heads.end; h++) {
    const float* x = floats(record->address[0]) + (uint64_t)h * size;
    float* out = floats(record->address[1]) + (uint64_t)h * size;
    float scale = inverse_length_of(x, size, record->attribute[1].number);
    for (uint32_t c = 0; c < size; c += lanes) store_up_to(out + c, load_up_to(x + c, size - c) * scale, size - c);
  }
}
