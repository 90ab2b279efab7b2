// Dropout, for training.

#include "kernels.h"
#include "simd.h"

static struct element_range elements_of(const struct pass* pass, const struct record* record, uint32_t thread) {
  return share_of_elements((uint64_t)row_count(pass, record) * record->width, lanes, thread, pass->thread_count);
}

// The same number in all lanes.
static inline vuint splat_word(uint32_t x) { return x - (vuint){0}; }

// Numbers that look random, from any others (Chris Wellons, https://github.com/skeeto/hash-prospector, "lowbias32").
static inline vuint hash(vuint x) {
  x ^= x >> 16;
  x *= 0x7feb352dU;
  x ^= x >> 15;
  x *= 0x846ca68bU;
  x ^= x >> 16;
  return x;
}

// out[i] = 0 for elements left out, x[i] / (1 - rate) for the others (Srivastava et al., JMLR 15, 2014). Which are left out
// follows from the pass's seed, the index and the element's place in the whole step alone (modulo 2^32), so that the gradient, which
// is the same function, leaves out the same, and processes that share a step leave out what one would.
//   address: x [rows, width], out [rows, width]; attribute: index, rate
static void dropout_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const float* x = floats(record->address[0]);
  float* out = floats(record->address[1]);
  struct element_range range = elements_of(pass, record, thread);
  vuint key = hash(pass->seed ^ hash(splat_word(record->attribute[0].count + 1)));
  uint32_t threshold = (uint32_t)((double)record->attribute[1].number * 0x1p32);
  float scale = 1 / (1 - record->attribute[1].number);
  vuint place = splat_word(pass->first_row * record->width + (uint32_t)range.begin);
  for (uint32_t lane = 0; lane < lanes; lane++) place[lane] += lane;
  for (uint64_t i = range.begin; i < range.end; i += lanes, place += lanes) {
    uint32_t left = range.end - i < lanes ? (uint32_t)(range.end - i) : lanes;
    vint is_left_out = hash(key ^ hash(place)) < threshold;
    store_up_to(out + i, choose(is_left_out, splat(0), load_up_to(x + i, left) * scale), left);
  }
}
