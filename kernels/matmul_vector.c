// The product of one row, that of decoding, which is as fast as weights come from memory.

#include "load_weights.h"
#include "matmul.h"

// Found by trying 1, 2 and 4 streams and distances of 0 to 8 KiB, in turn in one run: with AVX-512 on Zen 5, with AVX2 on Zen 1.
#if LANES == 8
enum { max_streams = 4, prefetch_distance = 512 };
#else
enum { max_streams = 2, prefetch_distance = 2048 };
#endif

// Inputs up to which x is spread for bfloat16, on the stack.
enum { spread_inputs = 16384 };

// Several rows of the matrix that lie `apart` elements apart are read at once, as streams that the processor can fetch
// independently; they are asked for well ahead, since its own prefetching ends at every page. Each output has its own four
// sums, whatever the number of streams.
static inline __attribute__((always_inline)) void multiply_streams(
    const void* weight, uint32_t dtype, uint64_t apart, uint32_t streams, const float* x, uint32_t count, float* sums) {
  enum { parts = 4 };  // independent sums hide the latency of an addition
  const uint32_t element = dtype == DTYPE_F32 ? 4 : 2;
  vfloat partial[max_streams][parts] = {0};
  uint32_t i = 0;
  for (; i + parts * lanes <= count; i += parts * lanes) {
    for (uint32_t s = 0; s < streams; s++) {
      const uint8_t* ahead = (const uint8_t*)weight + (s * apart + i) * element + prefetch_distance;
      for (uint32_t line = 0; line < parts * lanes * element; line += 64) __builtin_prefetch(ahead + line);
    }
    for (uint32_t p = 0; p < parts; p++) {
      vfloat value = load(x + i + p * lanes);
      for (uint32_t s = 0; s < streams; s++) {
        partial[s][p] = multiply_add(load_weights(weight, dtype, s * apart + i + p * lanes), value, partial[s][p]);
      }
    }
  }
  for (; i + lanes <= count; i += lanes) {
    for (uint32_t s = 0; s < streams; s++) {
      partial[s][0] = multiply_add(load_weights(weight, dtype, s * apart + i), load(x + i), partial[s][0]);
    }
  }
  for (uint32_t s = 0; s < streams; s++) {
    sums[s] = sum((partial[s][0] + partial[s][1]) + (partial[s][2] + partial[s][3]));
    for (uint32_t k = i; k < count; k++) sums[s] += load_weight(weight, dtype, s * apart + k) * x[k];
  }
}

// The same for bfloat16, two vectors of weights from one load: the even elements by a shift, the odd ones by a mask, which is
// less work than widening each half. For that x is spread: in every two vectors the even elements come first.
static inline __attribute__((always_inline)) void multiply_spread(const uint16_t* weight, uint64_t apart, uint32_t streams,
                                                                  const float* spread, const float* x, uint32_t count,
                                                                  float* sums) {
  enum { pairs = 2 };
  vfloat partial[max_streams][2 * pairs] = {0};
  uint32_t i = 0;
  for (; i + 2 * pairs * lanes <= count; i += 2 * pairs * lanes) {
    for (uint32_t s = 0; s < streams; s++) {
      const uint8_t* ahead = (const uint8_t*)(weight + s * apart + i) + prefetch_distance;
      for (uint32_t line = 0; line < 4 * pairs * lanes; line += 64) __builtin_prefetch(ahead + line);
    }
    for (uint32_t p = 0; p < pairs; p++) {
      vfloat even = load(spread + i + 2 * p * lanes), odd = load(spread + i + (2 * p + 1) * lanes);
      for (uint32_t s = 0; s < streams; s++) {
        vuint both = (vuint)load((const float*)(weight + s * apart + i + 2 * p * lanes));
        partial[s][2 * p] = multiply_add((vfloat)(both << 16), even, partial[s][2 * p]);
        partial[s][2 * p + 1] = multiply_add((vfloat)(both & 0xffff0000), odd, partial[s][2 * p + 1]);
      }
    }
  }
  for (uint32_t s = 0; s < streams; s++) {
    sums[s] = sum((partial[s][0] + partial[s][1]) + (partial[s][2] + partial[s][3]));
    for (uint32_t k = i; k < count; k++) sums[s] += bf16_to_float(weight[s * apart + k]) * x[k];
  }
}

static void spread_evenly(const float* x, uint32_t count, float* spread) {
  for (uint32_t i = 0; i + 2 * lanes <= count; i += 2 * lanes) {
    for (uint32_t k = 0; k < lanes; k++) {
      spread[i + k] = x[i + 2 * k];
      spread[i + lanes + k] = x[i + 2 * k + 1];
    }
  }
}

KERNEL void multiply_vector_bf16(const struct record* record, struct range outputs) {
  const uint16_t* weight = (const uint16_t*)(uintptr_t)record->address[0];
  const float* x = floats(record->address[1]);
  float* out = floats(record->address[4]);
  uint64_t inputs = record->inputs;
  _Alignas(64) float spread[spread_inputs];
  spread_evenly(x, record->inputs, spread);
  uint32_t apart = (outputs.end - outputs.begin) / max_streams;
  float sums[max_streams];
  for (uint32_t i = 0; i < apart; i++) {
    uint32_t first = outputs.begin + i;
    multiply_spread(weight + first * inputs, apart * inputs, max_streams, spread, x, record->inputs, sums);
    for (uint32_t s = 0; s < max_streams; s++) out[first + s * apart] = sums[s];
  }
  for (uint32_t o = outputs.begin + max_streams * apart; o < outputs.end; o++) {
    multiply_spread(weight + o * inputs, 0, 1, spread, x, record->inputs, out + o);
  }
}

typedef void vector_function(const void* weight, uint64_t apart, const float* x, uint32_t count, float* sums);

#define DEFINE_VECTOR(name, dtype, streams)                                                           \
  static void name(const void* weight, uint64_t apart, const float* x, uint32_t count, float* sums) { \
    multiply_streams(weight, dtype, apart, streams, x, count, sums);                                  \
  }

DEFINE_VECTOR(vector_f32_1, DTYPE_F32, 1)
DEFINE_VECTOR(vector_f16_1, DTYPE_F16, 1)
DEFINE_VECTOR(vector_bf16_1, DTYPE_BF16, 1)
DEFINE_VECTOR(vector_f32_n, DTYPE_F32, max_streams)
DEFINE_VECTOR(vector_f16_n, DTYPE_F16, max_streams)
DEFINE_VECTOR(vector_bf16_n, DTYPE_BF16, max_streams)

// By type, as enum dtype numbers them.
static vector_function* const one_stream[] = {vector_f32_1, vector_f16_1, vector_bf16_1};
static vector_function* const all_streams[] = {vector_f32_n, vector_f16_n, vector_bf16_n};

static void multiply_vector(const struct record* record, struct range outputs) {
  if (record->dtype == DTYPE_BF16 && record->inputs <= spread_inputs) return multiply_vector_bf16(record, outputs);
  const uint8_t* weight = (const uint8_t*)(uintptr_t)record->address[0];
  const float* x = floats(record->address[1]);
  float* out = floats(record->address[4]);
  uint32_t inputs = record->inputs;
  uint64_t row = inputs * element_size(record->dtype);
  uint32_t apart = (outputs.end - outputs.begin) / max_streams;
  float sums[max_streams];
  for (uint32_t i = 0; i < apart; i++) {
    uint32_t first = outputs.begin + i;
    all_streams[record->dtype](weight + first * row, (uint64_t)apart * inputs, x, inputs, sums);
    for (uint32_t s = 0; s < max_streams; s++) out[first + s * apart] = sums[s];
  }
  for (uint32_t o = outputs.begin + max_streams * apart; o < outputs.end; o++) {
    one_stream[record->dtype](weight + o * row, 0, x, inputs, out + o);
  }
}
