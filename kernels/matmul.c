// Matrix products with weights as they are stored: float32, binary16 or bfloat16. Arithmetic is float32. Threads share the
// outputs, so each weight is read by one thread, once for every block of four rows.

#include "plan.h"
#include "simd.h"

enum { block = 4 };  // rows of x that one reading of a weight row serves

// Sums over i of weight[i] * x[row][i] for `rows` rows that are `inputs` floats apart. Instantiated below for each type
// of weights and each number of rows, so that both are constants to the compiler.
static inline __attribute__((always_inline)) void dot_rows(
    const void* weight, uint32_t dtype, const float* x, uint32_t inputs, uint32_t rows, float* sums) {
  vfloat partial[block][2] = {0};
  uint32_t i = 0;
  const float* single = weight;
  const uint16_t* half = weight;
  for (; i + 2 * lanes <= inputs; i += 2 * lanes) {
    for (uint32_t part = 0; part < 2; part++) {
      uint32_t at = i + part * lanes;
      vfloat w = dtype == DTYPE_F32 ? load(single + at) : dtype == DTYPE_BF16 ? load_bf16(half + at) : load_f16(half + at);
      for (uint32_t r = 0; r < rows; r++) partial[r][part] += w * load(x + (uint64_t)r * inputs + at);
    }
  }
  for (uint32_t r = 0; r < rows; r++) sums[r] = sum(partial[r][0] + partial[r][1]);
  for (; i < inputs; i++) {
    float w = dtype == DTYPE_F32 ? single[i] : dtype == DTYPE_BF16 ? bf16_to_float(half[i]) : f16_to_float(half[i]);
    for (uint32_t r = 0; r < rows; r++) sums[r] += w * x[(uint64_t)r * inputs + i];
  }
}

#define DEFINE_DOT(name, dtype)                                                                               \
  static void name##_1(const void* weight, const float* x, uint32_t inputs, float* sums) {                    \
    dot_rows(weight, dtype, x, inputs, 1, sums);                                                              \
  }                                                                                                           \
  static void name##_4(const void* weight, const float* x, uint32_t inputs, float* sums) {                    \
    dot_rows(weight, dtype, x, inputs, block, sums);                                                          \
  }

DEFINE_DOT(dot_f32, DTYPE_F32)
DEFINE_DOT(dot_f16, DTYPE_F16)
DEFINE_DOT(dot_bf16, DTYPE_BF16)

typedef void dot_function(const void* weight, const float* x, uint32_t inputs, float* sums);

static dot_function* const dot_one[] = {dot_f32_1, dot_f16_1, dot_bf16_1};
static dot_function* const dot_block[] = {dot_f32_4, dot_f16_4, dot_bf16_4};

static float activate(uint32_t activation, float x) {
  switch (activation) {
    case ACTIVATION_SIGMOID: return sigmoid_v(splat(x))[0];
    case ACTIVATION_RELU_SQUARED: return x < 0 ? 0 : x * x;
    default: return x;
  }
}

// out[t][o] = activation(sum over i of weight[o][i] * x[t][i]) * multiplier[t][o] + addend[t][o]
//   address: weight [width, inputs] of dtype, x [rows, inputs], multiplier, addend [rows, width] or 0, out [rows, width]
void matmul_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const uint8_t* weight = (const uint8_t*)(uintptr_t)record->address[0];
  const float* x = floats(record->address[1]);
  const float* multiplier = floats(record->address[2]);
  const float* addend = floats(record->address[3]);
  float* out = floats(record->address[4]);
  uint32_t width = record->width;
  uint32_t inputs = record->inputs;
  uint32_t rows = row_count(pass, record);
  uint64_t weight_row = (uint64_t)inputs * (record->dtype == DTYPE_F32 ? 4 : 2);
  struct range outputs = share_of(width, 1, thread, pass->thread_count);
  for (uint32_t o = outputs.begin; o < outputs.end; o++) {
    for (uint32_t t = 0; t < rows;) {
      uint32_t count = rows - t >= block ? block : 1;
      float sums[block];
      dot_function* dot = count == block ? dot_block[record->dtype] : dot_one[record->dtype];
      dot(weight + o * weight_row, x + (uint64_t)t * inputs, inputs, sums);
      for (uint32_t r = 0; r < count; r++, t++) {
        uint64_t at = (uint64_t)t * width + o;
        float value = activate(record->function, sums[r]);
        if (multiplier) value *= multiplier[at];
        if (addend) value += addend[at];
        out[at] = value;
      }
    }
  }
}
