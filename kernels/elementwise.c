// Functions of one and two elements, for those that were not fused into a matrix product.

#include "kernels.h"
#include "simd.h"

static vfloat apply_unary(uint32_t function, vfloat x) {
  switch (function) {
    case UNARY_SIGMOID: return sigmoid_v(x);
    case UNARY_RELU: return choose(x < 0, splat(0), x);
    case UNARY_SQUARE: return x * x;
    case UNARY_EXP: return exp_v(x);
    default: return -x;
  }
}

static struct range element_range(const struct pass* pass, const struct record* record, uint32_t thread) {
  return share_of(row_count(pass, record) * record->width, lanes, thread, pass->thread_count);
}

// out = function(x)
//   address: x [rows, width], out [rows, width]
static void unary_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const float* x = floats(record->address[0]);
  float* out = floats(record->address[1]);
  struct range range = element_range(pass, record, thread);
  for (uint32_t i = range.begin; i < range.end; i += lanes) {
    uint32_t left = range.end - i;
    store_up_to(out + i, apply_unary(record->function, load_up_to(x + i, left)), left);
  }
}

// out = a + b or a * b
//   address: a, b [rows, width], out [rows, width]
static void binary_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const float* a = floats(record->address[0]);
  const float* b = floats(record->address[1]);
  float* out = floats(record->address[2]);
  struct range range = element_range(pass, record, thread);
  for (uint32_t i = range.begin; i < range.end; i += lanes) {
    uint32_t left = range.end - i;
    vfloat x = load_up_to(a + i, left);
    vfloat y = load_up_to(b + i, left);
    store_up_to(out + i, record->function == BINARY_ADD ? x + y : x * y, left);
  }
}
