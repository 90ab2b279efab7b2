// Products of many rows, those of prompts: bound by arithmetic. Weights are turned into panels of float32, a few vectors of
// outputs wide, so that whatever their type they are converted once for all rows. A kernel then takes a panel and a few rows of
// x, and keeps all their sums in registers: for each input it loads the panel's vectors once, and each x once for all outputs.
// (The scheme of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34(3), 2008.)

#include "load_weights.h"
#include "matmul.h"
#include "transpose.h"

#if LANES == 16
enum { panel_rows = 12 };  // 24 sums and 2 vectors of weights in 32 registers
#elif defined(__wasm__)
enum { panel_rows = 4 };  // engines keep some of the 16 registers for themselves; with 6 rows sums go to memory
#else
enum { panel_rows = 6 };  // 12 sums, 2 vectors of weights and one of x in 16 registers
#endif
enum { panel_vectors = 2, panel_width = panel_vectors * lanes };

// Inputs of a panel: it and its rows of x stay in the first level caches.
enum { panel_inputs = 256 };

// panel[i][o] = weight[o][i] for i < count, o < panel_width; 0 for outputs from `outputs` on. Rows of `weight` are `inputs`
// elements apart.
static inline __attribute__((always_inline)) void fill_panel(const void* weight, uint32_t dtype, uint64_t inputs,
                                                             uint32_t count, uint32_t outputs, float* panel) {
  for (uint32_t v = 0; v < panel_width; v += lanes) {
    for (uint32_t i = 0; i < count; i += lanes) {
      vfloat block[lanes];
      for (uint32_t o = 0; o < lanes; o++) {
        uint64_t at = (v + o) * inputs + i;
        if (v + o >= outputs) {
          block[o] = splat(0);
        } else if (count - i >= lanes) {
          block[o] = load_weights(weight, dtype, at);
        } else {
          float part[lanes] = {0};
          for (uint32_t k = 0; k < count - i; k++) part[k] = load_weight(weight, dtype, at + k);
          block[o] = load(part);
        }
      }
      transpose(block);
      for (uint32_t k = 0; k < lanes && i + k < count; k++) store(panel + (i + k) * panel_width + v, block[k]);
    }
  }
}

// out[r][o] (+)= sum over i < count of panel[i][o] * x[r][i]; rows of x are `inputs` apart, those of out `width`, of which
// `outputs` are written. `rows` is a constant where this is used.
static inline __attribute__((always_inline)) void multiply_panel(const float* panel, const float* x, uint64_t inputs,
                                                                 uint32_t count, uint32_t rows, float* out,
                                                                 uint64_t width, uint32_t outputs, int add) {
  vfloat sums[panel_rows][panel_vectors] = {0};
  for (uint32_t i = 0; i < count; i++) {
    vfloat w[panel_vectors];
    for (uint32_t v = 0; v < panel_vectors; v++) w[v] = load(panel + i * panel_width + v * lanes);
    for (uint32_t r = 0; r < rows; r++) {
      vfloat value = splat(x[r * inputs + i]);
      for (uint32_t v = 0; v < panel_vectors; v++) sums[r][v] = multiply_add(w[v], value, sums[r][v]);
    }
  }
  for (uint32_t r = 0; r < rows; r++) {
    for (uint32_t v = 0; v < panel_vectors && v * lanes < outputs; v++) {
      float* to = out + r * width + v * lanes;
      uint32_t left = outputs - v * lanes;
      store_up_to(to, add ? load_up_to(to, left) + sums[r][v] : sums[r][v], left);
    }
  }
}

typedef void panel_function(const float* panel, const float* x, uint64_t inputs, uint32_t count, float* out,
                            uint64_t width, uint32_t outputs, int add);

#define DEFINE_PANEL(rows)                                                                                      \
  static void panel_##rows(const float* panel, const float* x, uint64_t inputs, uint32_t count, float* out,     \
                           uint64_t width, uint32_t outputs, int add) {                                         \
    multiply_panel(panel, x, inputs, count, rows, out, width, outputs, add);                                    \
  }
DEFINE_PANEL(1)
DEFINE_PANEL(2)
DEFINE_PANEL(3)
DEFINE_PANEL(4)
#if !defined(__wasm__)
DEFINE_PANEL(5)
DEFINE_PANEL(6)
#endif
#if LANES == 16
DEFINE_PANEL(7)
DEFINE_PANEL(8)
DEFINE_PANEL(9)
DEFINE_PANEL(10)
DEFINE_PANEL(11)
DEFINE_PANEL(12)
#endif

// By the number of rows, less one.
static panel_function* const panel_functions[] = {
    panel_1, panel_2, panel_3, panel_4,
#if !defined(__wasm__)
    panel_5, panel_6,
#endif
#if LANES == 16
    panel_7, panel_8, panel_9, panel_10, panel_11, panel_12,
#endif
};

static void multiply_panels(const struct record* record, struct range outputs, uint32_t rows) {
  const uint8_t* weight = (const uint8_t*)(uintptr_t)record->address[0];
  const float* x = floats(record->address[1]);
  float* out = floats(record->address[4]);
  uint32_t inputs = record->inputs;
  uint64_t width = record->width;
  uint64_t element = element_size(record->dtype);
  _Alignas(64) float panel[panel_inputs * panel_width];
  for (uint32_t o = outputs.begin; o < outputs.end; o += panel_width) {
    uint32_t height = outputs.end - o < panel_width ? outputs.end - o : panel_width;
    for (uint32_t i = 0; i < inputs; i += panel_inputs) {
      uint32_t count = inputs - i < panel_inputs ? inputs - i : panel_inputs;
      const uint8_t* from = weight + ((uint64_t)o * inputs + i) * element;
      if (record->dtype == DTYPE_F32) fill_panel(from, DTYPE_F32, inputs, count, height, panel);
      else if (record->dtype == DTYPE_BF16) fill_panel(from, DTYPE_BF16, inputs, count, height, panel);
      else fill_panel(from, DTYPE_F16, inputs, count, height, panel);
      // Rows are taken in parts of nearly the same height, since a part of one row would leave most registers idle.
      uint32_t parts = (rows + panel_rows - 1) / panel_rows;
      for (uint32_t part = 0, t = 0; part < parts; part++) {
        uint32_t taken = (rows - t) / (parts - part);
        panel_functions[taken - 1](panel, x + (uint64_t)t * inputs + i, inputs, count, out + t * width + o, width, height, i > 0);
        t += taken;
      }
    }
  }
}
