// Token shift (arXiv 2305.13048v2, section 3.1.1, equations 11 to 15): each channel is mixed with the same channel of the token
// before. All mixes of one input are one kernel, which also leaves the last row in the state; threads share the channels, so a
// channel's state is read and written by one thread.

#include "kernels.h"
#include "simd.h"

// Of one row: out = x * factor + previous * (1 - factor)
static void mix_row(const float* x, const float* previous, const float* factor, float* out, uint32_t count) {
  for (uint32_t c = 0; c < count; c += lanes) {
    uint32_t left = count - c;
    vfloat share = load_up_to(factor + c, left);
    store_up_to(out + c, load_up_to(x + c, left) * share + load_up_to(previous + c, left) * (1 - share), left);
  }
}

// out[i][t] = x[t] * factor[i] + previous * (1 - factor[i]); previous = x[t-1], at a segment's start the state.
// The state becomes the segment's last row.
//   address: x [tokens, width], then factors [width], then outs [tokens, width], as many as the list is long
//   state: previous [width]
// A thread takes all of its channels row by row: rows of a vector each, apart by a power of two, would displace each other in the
// cache.
static void token_shift_forward(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  const uint64_t *factors = record->address + 1, *outs = factors + record->list_length;
  const uint32_t width = record->width;
  const struct range channels = channels_of(width, thread, pass->thread_count);
  const uint32_t count = channels.end - channels.begin;
  for (uint32_t s = 0; s < pass->segment_count; s++) {
    const float* previous = floats(segments[s].state) + record->state[0] + channels.begin;
    const uint64_t first = (uint64_t)segments[s].start * width + channels.begin;
    for (uint32_t t = 0; t < segments[s].count; t++) {
      const uint64_t at = first + (uint64_t)t * width;
      const float* x = floats(record->address[0]) + at;
      for (uint32_t i = 0; i < record->list_length; i++) {
        // What nobody needs is not written.
        if (outs[i]) mix_row(x, previous, floats(factors[i]) + channels.begin, floats(outs[i]) + at, count);
      }
      previous = x;
    }
    float* next_state = floats(segments[s].next_state) + record->state[0] + channels.begin;
    for (uint32_t c = 0; c < count; c += lanes) store_up_to(next_state + c, load_up_to(previous + c, count - c), count - c);
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
