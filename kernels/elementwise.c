// Functions of one and two elements, for those that were not fused into a matrix product; and dropout.

#include "kernels.h"
#include "simd.h"

static vfloat apply_unary(const struct record* record, vfloat x) {
  switch (record->function) {
    case UNARY_SIGMOID: return sigmoid_v(x);
    case UNARY_RELU_SQUARED: return relu_squared(x);
    case UNARY_EXP: return exp_v(x);
    case UNARY_ELU_PLUS_ONE: return choose(x > 0, x + 1, exp_v(x));
    case UNARY_SCALE: return x * record->factor;
    default: return -x;
  }
}

static vfloat apply_binary(uint32_t function, vfloat a, vfloat b) {
  switch (function) {
    case BINARY_ADD: return a + b;
    case BINARY_MULTIPLY: return a * b;
    case BINARY_SIGMOID_GRADIENT: return a * (1 - a) * b;
    case BINARY_ELU_PLUS_ONE_GRADIENT: return choose(a < 1, a, splat(1)) * b;
    default: return 2 * square_root(a) * b;
  }
}

static struct element_range elements_of(const struct pass* pass, const struct record* record, uint32_t thread) {
  return share_of_elements((uint64_t)row_count(pass, record) * record->width, lanes, thread, pass->thread_count);
}

// How many elements are left from `i` on; as many as a vector has where there are more.
static inline uint32_t left_of(struct element_range range, uint64_t i) {
  return range.end - i < lanes ? (uint32_t)(range.end - i) : lanes;
}

// out = function(x); scaling is by `factor`
//   address: x [rows, width], out [rows, width]
static void unary_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const float* x = floats(record->address[0]);
  float* out = floats(record->address[1]);
  struct element_range range = elements_of(pass, record, thread);
  for (uint64_t i = range.begin; i < range.end; i += lanes) {
    uint32_t left = left_of(range, i);
    store_up_to(out + i, apply_unary(record, load_up_to(x + i, left)), left);
  }
}

// out = a + b or a * b; or, with a the result of a function and b its gradient, the gradient of what it was applied to: of
// sigmoid a (1 - a) b, of relu squared 2 sqrt(a) b, of elu + 1 min(a, 1) b.
//   address: a, b [rows, width], out [rows, width]
static void binary_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const float* a = floats(record->address[0]);
  const float* b = floats(record->address[1]);
  float* out = floats(record->address[2]);
  struct element_range range = elements_of(pass, record, thread);
  for (uint64_t i = range.begin; i < range.end; i += lanes) {
    uint32_t left = left_of(range, i);
    store_up_to(out + i, apply_binary(record->function, load_up_to(a + i, left), load_up_to(b + i, left)), left);
  }
}

// A number that looks random, from any other (Chris Wellons, https://github.com/skeeto/hash-prospector, "lowbias32").
static inline uint32_t hash(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352dU;
  x ^= x >> 15;
  x *= 0x846ca68bU;
  x ^= x >> 16;
  return x;
}

// out[i] = 0 for elements left out, x[i] / (1 - rate) for the others (Srivastava et al., JMLR 15, 2014). Which are left out
// follows from the pass's seed, `count` and i alone (modulo 2^32), so that the gradient, which is the same function, leaves out the same.
//   address: x [rows, width], out [rows, width]; factor: rate
static void dropout_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const float* x = floats(record->address[0]);
  float* out = floats(record->address[1]);
  struct element_range range = elements_of(pass, record, thread);
  uint32_t key = hash(pass->seed ^ hash(record->count + 1));
  uint32_t threshold = (uint32_t)((double)record->factor * 0x1p32);
  float scale = 1 / (1 - record->factor);
  for (uint64_t i = range.begin; i < range.end; i++) out[i] = hash(key ^ hash((uint32_t)i)) < threshold ? 0 : x[i] * scale;
}
