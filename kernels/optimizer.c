// The optimizer: the norm of all gradients together, and AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization",
// arXiv 1711.05101, algorithm 2). Sums are taken in chunks of fixed size, so that they do not depend on the number of threads.

#include "kernels.h"
#include "simd.h"

// What changes from step to step; written by src/backends/kernel/optimizer.ts.
struct optimizer_settings {
  float learning_rate;
  float beta1;
  float beta2;
  float epsilon;
  float weight_decay;
  float max_norm;     // gradients together longer than this are shortened to it
  float correction1;  // 1 - beta1^step
  float correction2;  // 1 - beta2^step
  float norm;         // of all gradients together; an output
  float scale;        // what gradients are multiplied by; 0 where the norm is not a finite number
};

enum { squares_chunk = 4096 };

// partial[n] = sum of x[i]^2 over chunk n.
//   address: x [rows, width], partial: doubles, one a chunk
static void sum_of_squares(const struct pass* pass, const struct record* record, uint32_t thread) {
  const float* x = floats(record->address[0]);
  double* partial = (double*)(uintptr_t)record->address[1];
  uint64_t count = (uint64_t)record->rows * record->width;
  struct element_range chunks = share_of_elements((count + squares_chunk - 1) / squares_chunk, 1, thread, pass->thread_count);
  for (uint64_t chunk = chunks.begin; chunk < chunks.end; chunk++) {
    const float* from = x + chunk * squares_chunk;
    uint32_t size = count - chunk * squares_chunk < squares_chunk ? (uint32_t)(count - chunk * squares_chunk) : squares_chunk;
    vfloat total[4] = {0};
    for (uint32_t i = 0, n = 0; i < size; i += lanes, n++) {
      vfloat value = load_up_to(from + i, size - i);
      total[n % 4] += value * value;
    }
    partial[chunk] = sum(total[0] + total[1] + (total[2] + total[3]));
  }
}

// norm = sqrt(sum of all partial sums); scale = min(1, max_norm / norm)
//   address: settings, partial: `count` doubles
static void gradient_norm(const struct pass* pass, const struct record* record, uint32_t thread) {
  (void)pass;
  if (thread != 0) return;
  struct optimizer_settings* settings = (struct optimizer_settings*)(uintptr_t)record->address[0];
  const double* partial = (const double*)(uintptr_t)record->address[1];
  double total = 0;
  for (uint32_t i = 0; i < record->attribute[0].count; i++) total += partial[i];
  float norm = (float)__builtin_sqrt(total);
  settings->norm = norm;
  settings->scale = !(norm - norm == 0) ? 0 : norm > settings->max_norm ? settings->max_norm / norm : 1;
}

// One step of AdamW; none where the gradients are not finite numbers, so that weights stay as they were.
//   address: settings, weight, gradient, first moment, second moment [rows, width]
//   attribute: what the learning rate is multiplied by, whether the weight decays
static void adam_step(const struct pass* pass, const struct record* record, uint32_t thread) {
  const struct optimizer_settings settings = *(const struct optimizer_settings*)(uintptr_t)record->address[0];
  if (settings.scale == 0) return;
  float* weight = floats(record->address[1]);
  const float* gradient = floats(record->address[2]);
  float* first = floats(record->address[3]);
  float* second = floats(record->address[4]);
  float rate = settings.learning_rate * record->attribute[0].number;
  float kept = record->attribute[1].count ? 1 - rate * settings.weight_decay : 1;
  float step = rate / settings.correction1;
  vfloat unbias = splat(1 / settings.correction2);
  struct element_range range = share_of_elements((uint64_t)record->rows * record->width, 16, thread, pass->thread_count);
  for (uint64_t i = range.begin; i < range.end; i += lanes) {
    uint32_t left = range.end - i < lanes ? (uint32_t)(range.end - i) : lanes;
    vfloat g = load_up_to(gradient + i, left) * settings.scale;
    vfloat m = load_up_to(first + i, left) * settings.beta1 + g * (1 - settings.beta1);
    vfloat v = load_up_to(second + i, left) * settings.beta2 + g * g * (1 - settings.beta2);
    store_up_to(first + i, m, left);
    store_up_to(second + i, v, left);
    store_up_to(weight + i, load_up_to(weight + i, left) * kept - step * m / (square_root(v * unbias) + settings.epsilon), left);
  }
}
