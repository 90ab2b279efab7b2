// Elements to another type of floating point number, as weights are brought in: what src/dtypes.ts does one by one,
// to the same bits; of a NaN only that it is one.

#include "kernels.h"
#include "simd.h"

typedef double vdouble __attribute__((vector_size(8 * LANES)));

enum { convert_grain = 4096 };

static inline uint32_t size_of_element(uint32_t dtype) {
  return dtype == DTYPE_F64 ? 8 : dtype == DTYPE_F32 ? 4 : 2;
}

// Rounds to nearest, ties to even. A NaN stays one also where its upper half would be infinity.
static inline vuint bf16_bits(vfloat x) {
  vuint bits = (vuint)x;
  vuint is_nan = (vuint)(x != x);
  vuint rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return (is_nan & ((bits >> 16) | 0x40)) | (~is_nan & rounded);
}

// Rounds to nearest, ties to even; values past 65504 become infinite.
static inline vuint f16_bits(vfloat x) {
  vuint sign = ((vuint)x >> 16) & 0x8000;
  vfloat positive = magnitude_of(x);
  vuint magnitude = (vuint)positive;
  // Adding 0.5 moves the mantissa of a subnormal to where float32 itself rounds it to the right bit.
  vuint subnormal = (vuint)(positive + 0.5f) - 0x3f000000;
  vuint normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  vuint is_small = (vuint)((vint)magnitude < 0x38800000), is_large = (vuint)((vint)magnitude >= 0x477ff000);
  vuint is_nan = (vuint)((vint)magnitude > 0x7f800000);
  vuint result = (is_small & subnormal) | (~is_small & normal);
  result = (is_large & 0x7c00) | (~is_large & result);
  return sign | (is_nan & 0x7e00) | (~is_nan & result);
}

static inline __attribute__((always_inline)) vfloat load_elements(const uint8_t* from, uint32_t dtype) {
  if (dtype == DTYPE_F64) {
    vdouble value;
    __builtin_memcpy(&value, from, sizeof value);
    return __builtin_convertvector(value, vfloat);
  }
  if (dtype == DTYPE_F32) return load((const float*)from);
  return dtype == DTYPE_BF16 ? load_bf16((const uint16_t*)from) : load_f16((const uint16_t*)from);
}

static inline __attribute__((always_inline)) void store_elements(uint8_t* to, vfloat x, uint32_t dtype) {
  if (dtype == DTYPE_F32) return store((float*)to, x);
  vhalf halves = __builtin_convertvector(dtype == DTYPE_BF16 ? bf16_bits(x) : f16_bits(x), vhalf);
  __builtin_memcpy(to, &halves, sizeof halves);
}

static inline __attribute__((always_inline)) void convert_elements(const uint8_t* from, uint32_t from_dtype,
                                                                   uint8_t* to, uint32_t to_dtype, uint64_t count) {
  uint32_t from_size = size_of_element(from_dtype), to_size = size_of_element(to_dtype);
  uint64_t whole = count - count % lanes;
  for (uint64_t i = 0; i < whole; i += lanes) {
    store_elements(to + i * to_size, load_elements(from + i * from_size, from_dtype), to_dtype);
  }
  if (whole == count) return;
  uint8_t part[8 * lanes] = {0}, converted[4 * lanes];
  for (uint64_t i = 0; i < (count - whole) * from_size; i++) part[i] = from[whole * from_size + i];
  store_elements(converted, load_elements(part, from_dtype), to_dtype);
  for (uint64_t i = 0; i < (count - whole) * to_size; i++) to[whole * to_size + i] = converted[i];
}

// Where the types are constants, so are all choices by them.
static inline __attribute__((always_inline)) void convert_to(const uint8_t* from, uint32_t from_dtype, uint8_t* to,
                                                             uint32_t to_dtype, uint64_t count) {
  switch (to_dtype) {
    case DTYPE_F32: return convert_elements(from, from_dtype, to, DTYPE_F32, count);
    case DTYPE_BF16: return convert_elements(from, from_dtype, to, DTYPE_BF16, count);
    case DTYPE_F16: return convert_elements(from, from_dtype, to, DTYPE_F16, count);
  }
}

// out = x in another type.
//   address: x [width, inputs] of dtype, out [width, inputs] of the type that the attribute says
static void convert_weights(const struct pass* pass, const struct record* record, uint32_t thread) {
  uint64_t count = (uint64_t)record->width * record->inputs;
  struct range share = share_of((uint32_t)((count + convert_grain - 1) / convert_grain), 1, thread, pass->thread_count);
  uint64_t begin = (uint64_t)share.begin * convert_grain, end = (uint64_t)share.end * convert_grain;
  if (end > count) end = count;
  const uint8_t* from = (const uint8_t*)(uintptr_t)record->address[0] + begin * size_of_element(record->dtype);
  uint8_t* to = (uint8_t*)(uintptr_t)record->address[1] + begin * size_of_element(record->attribute[0].count);
  switch (record->dtype) {
    case DTYPE_F64: return convert_to(from, DTYPE_F64, to, record->attribute[0].count, end - begin);
    case DTYPE_F32: return convert_to(from, DTYPE_F32, to, record->attribute[0].count, end - begin);
    case DTYPE_BF16: return convert_to(from, DTYPE_BF16, to, record->attribute[0].count, end - begin);
    case DTYPE_F16: return convert_to(from, DTYPE_F16, to, record->attribute[0].count, end - begin);
  }
}
