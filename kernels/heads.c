// Reductions over heads: each row is parts of equal width. Between barriers on both sides threads share the heads of all rows;
// otherwise those of each row, as heads_of divides them, so that a thread continues with the channels of its own heads.

#include "kernels.h"
#include "simd.h"

// A thread's heads: from `begin` on `own` of every `all`.
struct head_share {
  uint32_t begin, own, all, count;
};

static struct head_share head_share_of(const struct pass* pass, const struct record* record, uint32_t size, uint32_t thread) {
  uint32_t rows = row_count(pass, record), heads = record->attribute[0].count;
  if (record->barrier_before == BARRIER_ALWAYS && record->barrier_after == BARRIER_ALWAYS) {
    struct range range = share_of(rows * heads, 1, thread, pass->thread_count);
    return (struct head_share){range.begin, range.end - range.begin, rows * heads, range.end - range.begin};
  }
  struct range range = heads_of(heads, size, thread, pass->thread_count);
  return (struct head_share){range.begin, range.end - range.begin, heads, rows * (range.end - range.begin)};
}

// Number `n` of them, among the heads of all rows.
static inline uint32_t head_of_share(const struct head_share* share, uint32_t n) {
  return n / share->own * share->all + share->begin + n % share->own;
}

// A function of one head: of x, and of the gradient for its result, where it is one's gradient.
typedef void head_function(const float* x, const float* dout, float* out, uint32_t size, float epsilon);

// Applies a function to each head of a thread.
//   address: x, dout (of gradients), out [rows, width]; attribute: heads, epsilon
static inline __attribute__((always_inline)) void apply_to_heads(const struct pass* pass, const struct record* record,
                                                                 uint32_t thread, int is_gradient, head_function* apply) {
  uint32_t size = record->width / record->attribute[0].count;
  struct head_share share = head_share_of(pass, record, size, thread);
  for (uint32_t n = 0; n < share.count; n++) {
    uint64_t at = (uint64_t)head_of_share(&share, n) * size;
    const float* dout = is_gradient ? floats(record->address[1]) + at : 0;
    float* out = floats(record->address[is_gradient ? 2 : 1]) + at;
    apply(floats(record->address[0]) + at, dout, out, size, record->attribute[1].number);
  }
}

// out[t][h] = sum over the channels c of head h of x[t][c]
//   address: x [rows, inputs], out [rows, heads]; attribute: heads
static void head_sum_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  uint32_t size = record->inputs / record->attribute[0].count;
  struct head_share share = head_share_of(pass, record, size, thread);
  for (uint32_t n = 0; n < share.count; n++) {
    uint32_t h = head_of_share(&share, n);
    const float* x = floats(record->address[0]) + (uint64_t)h * size;
    vfloat total = {0};
    for (uint32_t c = 0; c < size; c += lanes) total += load_up_to(x + c, size - c);
    floats(record->address[1])[h] = sum(total);
  }
}

// out = (x - mean) / sqrt(variance + epsilon) over each head (group normalization, arXiv 1803.08494, equation 1, without its
// affine part), with the biased variance.
static void norm_of_head(const float* x, const float* dout, float* out, uint32_t size, float epsilon) {
  (void)dout;
  struct moments moments = moments_of(x, size, epsilon);
  for (uint32_t c = 0; c < size; c += lanes) {
    store_up_to(out + c, (load_up_to(x + c, size - c) - moments.mean) * moments.scale, size - c);
  }
}

static void head_norm_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  apply_to_heads(pass, record, thread, 0, norm_of_head);
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
static void normalize_head(const float* x, const float* dout, float* out, uint32_t size, float epsilon) {
  (void)dout;
  float scale = inverse_length_of(x, size, epsilon);
  for (uint32_t c = 0; c < size; c += lanes) store_up_to(out + c, load_up_to(x + c, size - c) * scale, size - c);
}

static void head_normalize_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  apply_to_heads(pass, record, thread, 0, normalize_head);
}
