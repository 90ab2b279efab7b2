// Token shift (arXiv 2305.13048v2, section 3.1.1, equations 11 to 15): each channel is mixed with the same channel of the token
// before. All mixes of one input are one kernel, which also moves the state on; threads share the channels, so a channel's
// state is read and written by one thread.

#include "kernels.h"
#include "simd.h"

// out[i][t] = x[t] * factor[i] + previous * (1 - factor[i]); previous = x[t-1], at a segment's start the state.
// The state becomes the segment's last row.
//   address: x [tokens, width], factor 0 to 3 [width], out 0 to 3 [tokens, width]
//   state: previous [width]; count: how many factors
static void token_shift_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  const float* x = floats(record->address[0]);
  uint32_t width = record->width;
  struct range channels = channels_of(width, thread, pass->thread_count);
  for (uint32_t s = 0; s < pass->segment_count; s++) {
    float* state = floats(segments[s].state) + record->state[0];
    for (uint32_t c = channels.begin; c < channels.end; c += lanes) {
      uint32_t left = channels.end - c;
      vfloat previous = load_up_to(state + c, left);
      vfloat factor[4];
      for (uint32_t i = 0; i < record->count; i++) factor[i] = load_up_to(floats(record->address[1 + i]) + c, left);
      for (uint32_t t = segments[s].start; t < segments[s].start + segments[s].count; t++) {
        uint64_t at = (uint64_t)t * width + c;
        vfloat now = load_up_to(x + at, left);
        for (uint32_t i = 0; i < record->count; i++) {
          store_up_to(floats(record->address[5 + i]) + at, now * factor[i] + previous * (1 - factor[i]), left);
        }
        previous = now;
      }
      store_up_to(state + c, previous, left);
    }
  }
}
