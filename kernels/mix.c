// Token shift (arXiv 2305.13048v2, section 3.1.1, equations 11 to 15): each channel is mixed with the same channel of the token
// before. All mixes of one input are one kernel, which also leaves the last row in the state; threads share the channels, so a
// channel's state is read and written by one thread.

#include "kernels.h"
#include "simd.h"

enum { mixed_together = 4 };  // factors that are held in registers while a sequence is walked

// out[i][t] = x[t] * factor[i] + previous * (1 - factor[i]); previous = x[t-1], at a segment's start the state.
// The state becomes the segment's last row.
//   address: x [tokens, width], then factors [width], then outs [tokens, width], as many as the list is long
//   state: previous [width]
static void token_shift_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  const float* x = floats(record->address[0]);
  const uint64_t *factors = record->address + 1, *outs = factors + record->list_length;
  uint32_t width = record->width;
  struct range channels = channels_of(width, thread, pass->thread_count);
  for (uint32_t s = 0; s < pass->segment_count; s++) {
    const float* state = floats(segments[s].state) + record->state[0];
    float* next_state = floats(segments[s].next_state) + record->state[0];
    for (uint32_t c = channels.begin; c < channels.end; c += lanes) {
      uint32_t left = channels.end - c;
      vfloat before = load_up_to(state + c, left), last = before;
      for (uint32_t first = 0; first < record->list_length; first += mixed_together) {
        uint32_t count = record->list_length - first < mixed_together ? record->list_length - first : mixed_together;
        vfloat previous = before, factor[mixed_together];
        for (uint32_t i = 0; i < count; i++) factor[i] = load_up_to(floats(factors[first + i]) + c, left);
        for (uint32_t t = segments[s].start; t < segments[s].start + segments[s].count; t++) {
          uint64_t at = (uint64_t)t * width + c;
          vfloat now = load_up_to(x + at, left);
          for (uint32_t i = 0; i < count; i++) {
            // What nobody needs is not written.
            if (outs[first + i]) store_up_to(floats(outs[first + i]) + at, now * factor[i] + previous * (1 - factor[i]), left);
          }
          previous = now;
        }
        last = previous;
      }
      store_up_to(next_state + c, last, left);
    }
  }
}

// out[t] = previous - x[t], with previous as above. The state becomes the segment's last row.
//   address: x [tokens, width], out [tokens, width]; state: previous [width]
static void shift_difference_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  uint32_t width = record->width;
  struct range channels = channels_of(width, thread, pass->thread_count);
  for (uint32_t s = 0; s < pass->segment_count; s++) {
    const float* state = floats(segments[s].state) + record->state[0];
    float* next_state = floats(segments[s].next_state) + record->state[0];
    for (uint32_t c = channels.begin; c < channels.end; c += lanes) {
      uint32_t left = channels.end - c;
      vfloat previous = load_up_to(state + c, left);
      for (uint32_t t = segments[s].start; t < segments[s].start + segments[s].count; t++) {
        uint64_t at = (uint64_t)t * width + c;
        vfloat now = load_up_to(floats(record->address[0]) + at, left);
        store_up_to(floats(record->address[1]) + at, previous - now, left);
        previous = now;
      }
      store_up_to(next_state + c, previous, left);
    }
  }
}
