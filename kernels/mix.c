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
    const float* state = floats(segments[s].state) + record->state[0];
    float* next_state = floats(segments[s].next_state) + record->state[0];
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
      store_up_to(next_state + c, previous, left);
    }
  }
}

// The gradient of token_shift_forward, walking back along time:
//   dx[t] = sum over i of dout[i][t] * factor[i] + dout[i][t + 1] * (1 - factor[i])
//   dfactor[i] = sum over t of dout[i][t] * (x[t] - previous), dstate = what x[-1] gets, summed over segments
//   address: x [tokens, width], factor 0 to 3 [width], dout 0 to 3 [tokens, width]; then dx [tokens, width],
//     dfactor 0 to 3 [width], dstate [width], each 0 where it is not wanted
//   state: previous [width]; count: how many factors
static void token_shift_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  const float* x = floats(record->address[0]);
  float* dx = floats(record->address[9]);
  float* dstate = floats(record->address[14]);
  uint32_t width = record->width, count = record->count;
  struct range channels = fine_channels_of(width, thread, pass->thread_count);
  for (uint32_t c = channels.begin; c < channels.end; c += lanes) {
    uint32_t left = channels.end - c;
    vfloat factor[4] = {0}, dfactor[4] = {0}, first = {0};
    for (uint32_t i = 0; i < count; i++) factor[i] = load_up_to(floats(record->address[1 + i]) + c, left);
    for (uint32_t s = 0; s < pass->segment_count; s++) {
      vfloat later = {0};  // what the row after gives
      for (uint32_t n = segments[s].count; n-- > 0;) {
        uint64_t at = (uint64_t)(segments[s].start + n) * width + c;
        vfloat previous = load_up_to(n > 0 ? x + at - width : floats(segments[s].state) + record->state[0] + c, left);
        vfloat change = load_up_to(x + at, left) - previous;
        vfloat now = later;
        later = splat(0);
        for (uint32_t i = 0; i < count; i++) {
          vfloat dout = load_up_to(floats(record->address[5 + i]) + at, left);
          now += dout * factor[i];
          later += dout * (1 - factor[i]);
          dfactor[i] += dout * change;
        }
        if (dx) store_up_to(dx + at, now, left);
      }
      first += later;
    }
    for (uint32_t i = 0; i < count; i++) {
      if (record->address[10 + i]) store_up_to(floats(record->address[10 + i]) + c, dfactor[i], left);
    }
    if (dstate) store_up_to(dstate + c, first, left);
  }
}
