// The gradient of token shift.

#include "kernels.h"
#include "simd.h"

enum { mixed_together = 4 };  // factors that are held in registers while a sequence is walked

// The gradient of token_shift_forward, walking back along time:
//   dx[t] = sum over i of dout[i][t] * factor[i] + dout[i][t + 1] * (1 - factor[i])
//   dfactor[i] = sum over t of dout[i][t] * (x[t] - previous), dstate = what x[-1] gets, summed over segments
//   address: x [tokens, width], douts [tokens, width], factors [width], as many as the list is long; then dx [tokens, width],
//     dstate [width], dfactors [width], each 0 where it is not wanted
//   state: previous [width]
static void token_shift_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  uint32_t width = record->width, length = record->list_length;
  const uint64_t *douts = record->address + 1, *factors = douts + length, *outputs = factors + length;
  const float* x = floats(record->address[0]);
  float *dx = floats(outputs[0]), *dstate = floats(outputs[1]);
  const uint64_t* dfactors = outputs + 2;
  struct range channels = fine_channels_of(width, thread, pass->thread_count);
  for (uint32_t c = channels.begin; c < channels.end; c += lanes) {
    uint32_t left = channels.end - c;
    vfloat first_rows = {0};
    for (uint32_t first = 0; first < length; first += mixed_together) {
      uint32_t count = length - first < mixed_together ? length - first : mixed_together;
      vfloat factor[mixed_together] = {0}, dfactor[mixed_together] = {0};
      for (uint32_t i = 0; i < count; i++) factor[i] = load_up_to(floats(factors[first + i]) + c, left);
      for (uint32_t s = 0; s < pass->segment_count; s++) {
        vfloat later = {0};  // what the row after gives
        for (uint32_t n = segments[s].count; n-- > 0;) {
          uint64_t at = (uint64_t)(segments[s].start + n) * width + c;
          vfloat previous = load_up_to(n > 0 ? x + at - width : floats(segments[s].state) + record->state[0] + c, left);
          vfloat change = load_up_to(x + at, left) - previous;
          vfloat now = later;
          later = splat(0);
          for (uint32_t i = 0; i < count; i++) {
            vfloat dout = load_up_to(floats(douts[first + i]) + at, left);
            now += dout * factor[i];
            later += dout * (1 - factor[i]);
            dfactor[i] += dout * change;
          }
          if (!dx) continue;
          store_up_to(dx + at, first == 0 ? now : load_up_to(dx + at, left) + now, left);
        }
        first_rows += later;
      }
      for (uint32_t i = 0; i < count; i++) {
        if (dfactors[first + i]) store_up_to(floats(dfactors[first + i]) + c, dfactor[i], left);
      }
    }
    if (dstate) store_up_to(dstate + c, first_rows, left);
  }
}

// The gradient of shift_difference_forward: dx[t] = dout[t + 1] - dout[t], and for the state the sum over
// segments of their first rows.
//   address: dout [tokens, width]; then dx [tokens, width] and dstate [width], each 0 where it is not wanted
static void shift_difference_gradient(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  uint32_t width = record->width;
  const float* dout = floats(record->address[0]);
  float *dx = floats(record->address[1]), *dstate = floats(record->address[2]);
  struct range channels = fine_channels_of(width, thread, pass->thread_count);
  for (uint32_t c = channels.begin; c < channels.end; c += lanes) {
    uint32_t left = channels.end - c;
    vfloat first_rows = {0};
    for (uint32_t s = 0; s < pass->segment_count; s++) {
      vfloat later = {0};
      for (uint32_t n = segments[s].count; n-- > 0;) {
        uint64_t at = (uint64_t)(segments[s].start + n) * width + c;
        vfloat now = load_up_to(dout + at, left);
        if (dx) store_up_to(dx + at, later - now, left);
        later = now;
      }
      first_rows += later;
    }
    if (dstate) store_up_to(dstate + c, first_rows, left);
  }
}
