// Probes of the machine, run like any other operation: how fast all threads together read memory, and how fast they
// multiply and add. Speeds of the model are measured against these, in the same run.

#include "kernels.h"
#include "simd.h"

// Reads `count` MiB once, each thread its share in four streams.
//   address: memory, result [16 floats a thread]
static void probe_read(const struct pass* pass, const struct record* record, uint32_t thread) {
  struct range share = share_of(record->attribute[0].count, 1, thread, pass->thread_count);
  uint64_t length = (uint64_t)(share.end - share.begin) << 18;  // floats
  const float* memory = floats(record->address[0]) + ((uint64_t)share.begin << 18);
  uint64_t quarter = length / 4;
  vfloat sums[4] = {0};
  for (uint64_t i = 0; i < quarter; i += lanes) {
    for (int stream = 0; stream < 4; stream++) sums[stream] += load(memory + (uint64_t)stream * quarter + i);
  }
  floats(record->address[1])[thread * 16] = sum(sums[0] + sums[1] + sums[2] + sums[3]);
}

enum { chains = 10 };  // independent sums, enough to hide the latency of an addition

// Does `count` * 1024 * 10 multiplications and additions of vectors, on each thread.
//   address: memory [at least 16 floats], result [16 floats a thread]
static void probe_arithmetic(const struct pass* pass, const struct record* record, uint32_t thread) {
  (void)pass;
  vfloat factor = load(floats(record->address[0])) + 0.999f;
  vfloat sums[chains];
  for (int chain = 0; chain < chains; chain++) sums[chain] = factor * (float)chain;  // equal ones would be computed once
  for (uint64_t i = 0; i < (uint64_t)record->attribute[0].count * 1024; i++) {
    for (int chain = 0; chain < chains; chain++) sums[chain] = sums[chain] * factor + factor;
  }
  vfloat total = {0};
  for (int chain = 0; chain < chains; chain++) total += sums[chain];
  floats(record->address[1])[thread * 16] = sum(total);
}
