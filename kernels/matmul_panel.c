// Products of training, of many rows: bound by arithmetic. Columns of the right matrix are turned
// into panels of float32, a few vectors wide, so that whatever their type they are converted once for all rows; a block
// of panels stays in the second level cache. A few rows of the left matrix are packed too, into the first. The kernel
// takes these rows and a panel, and keeps all their sums in registers: for each inner element it loads the panel's
// vectors once for all rows, and each row's element once for the whole panel. (The scheme of Goto and van de Geijn,
// "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34(3), 2008.)

#include "load_weights.h"
#include "matmul.h"
#include "transpose.h"

#if LANES == 16
enum { panel_rows = 12 };  // 24 sums and 2 vectors of weights in 32 registers
#elif defined(__wasm__)
enum { panel_rows = 4 };  // engines keep some of the 16 registers for themselves; with 6 rows sums go to memory
#else
enum { panel_rows = 6 };  // 12 sums, 2 vectors of weights and one of the left matrix in 16 registers
#endif
enum { panel_vectors = 2, panel_width = panel_vectors * lanes };

// Inner elements and columns of a block of panels, which has 128 KiB.
enum { block_inner = 256, block_columns = 128 };

// Packed rows of the left matrix lie one after another where they do so in memory, apart by a cache line more than a
// power of two; or else, as columns in memory, element after element.
enum { packed_row = block_inner + 16, packed_elements = panel_rows > 8 ? 16 : 8 };

// panel[k][c] = right[k][c] for k < count, c < panel_width; 0 from `columns` on. Where columns lie one after another.
static inline __attribute__((always_inline)) void copy_panel(const void* right, uint32_t dtype, uint64_t inner,
                                                             uint32_t count, uint32_t columns, float* panel) {
  for (uint32_t k = 0; k < count; k++) {
    for (uint32_t c = 0; c < panel_width; c += lanes) {
      uint64_t at = k * inner + c;
      if (c + lanes <= columns) {
        store(panel + k * panel_width + c, load_weights(right, dtype, at));
      } else {
        for (uint32_t i = 0; i < lanes; i++)
          panel[k * panel_width + c + i] = c + i < columns ? load_weight(right, dtype, at + i) : 0;
      }
    }
  }
}

// The same where inner elements lie one after another, columns `outer` elements apart.
static inline __attribute__((always_inline)) void transpose_panel(const void* right, uint32_t dtype, uint64_t outer,
                                                                  uint32_t count, uint32_t columns, float* panel) {
  for (uint32_t v = 0; v < panel_width; v += lanes) {
    for (uint32_t i = 0; i < count; i += lanes) {
      vfloat block[lanes];
      for (uint32_t c = 0; c < lanes; c++) {
        uint64_t at = (v + c) * outer + i;
        if (v + c >= columns) {
          block[c] = splat(0);
        } else if (count - i >= lanes) {
          block[c] = load_weights(right, dtype, at);
        } else {
          float part[lanes] = {0};
          for (uint32_t k = 0; k < count - i; k++) part[k] = load_weight(right, dtype, at + k);
          block[c] = load(part);
        }
      }
      transpose(block);
      for (uint32_t k = 0; k < lanes && i + k < count; k++) store(panel + (i + k) * panel_width + v, block[k]);
    }
  }
}

#define DEFINE_FILL(name, dtype)                                                                        \
  static void name(const void* right, uint64_t outer, uint64_t inner, uint32_t count, uint32_t columns, \
                   float* panel) {                                                                      \
    if (inner == 1) transpose_panel(right, dtype, outer, count, columns, panel);                        \
    else copy_panel(right, dtype, inner, count, columns, panel);                                        \
  }
DEFINE_FILL(fill_f32, DTYPE_F32)
DEFINE_FILL(fill_f16, DTYPE_F16)
DEFINE_FILL(fill_bf16, DTYPE_BF16)

static void fill_panel(struct right_matrix right, uint32_t column, uint32_t k, uint32_t count, uint32_t columns,
                       float* panel) {
  const uint8_t* from =
      (const uint8_t*)right.weights + (column * right.outer + k * right.inner) * element_size(right.dtype);
  if (right.dtype == DTYPE_F32) fill_f32(from, right.outer, right.inner, count, columns, panel);
  else if (right.dtype == DTYPE_BF16) fill_bf16(from, right.outer, right.inner, count, columns, panel);
  else fill_f16(from, right.outer, right.inner, count, columns, panel);
}

// `rows` rows of the left matrix, `count` elements of each.
static void pack_rows(struct left_matrix left, uint32_t row, uint32_t k, uint32_t rows, uint32_t count, float* packed) {
  const float* from = left.floats + row * left.outer + k * left.inner;
  if (left.inner == 1) {
    for (uint32_t r = 0; r < rows; r++) {
      for (uint32_t i = 0; i < count; i += lanes) {
        uint32_t some = count - i;
        store_up_to(packed + r * packed_row + i, load_up_to(from + r * left.outer + i, some), some);
      }
    }
  } else {
    for (uint32_t i = 0; i < count; i++) {
      float* to = packed + i * packed_elements;
      // Nearly always a copy of constant size.
      if (rows == panel_rows) __builtin_memcpy(to, from + i * left.inner, 4 * panel_rows);
      else for (uint32_t r = 0; r < rows; r++) to[r] = from[i * left.inner + r];
    }
  }
}

// out[r][c] (+)= sum over k < count of packed[r][k] * panel[k][c]; rows of out are `width` apart, `columns` are
// written. How many rows there are and where their elements lie are constants where this is used.
static inline __attribute__((always_inline)) void multiply_panel(const float* panel, const float* packed,
                                                                 uint32_t outer, uint32_t inner, uint32_t count,
                                                                 uint32_t rows, float* out, uint64_t width,
                                                                 uint32_t columns, int add) {
  vfloat sums[panel_rows][panel_vectors];
  for (uint32_t r = 0; r < rows; r++) {
    for (uint32_t v = 0; v < panel_vectors; v++) sums[r][v] = splat(0);
  }
  for (uint32_t k = 0; k < count; k++, panel += panel_width, packed += inner) {
    vfloat w[panel_vectors];
    for (uint32_t v = 0; v < panel_vectors; v++) w[v] = load(panel + v * lanes);
    for (uint32_t r = 0; r < rows; r++) {
      vfloat value = splat(packed[r * outer]);
      for (uint32_t v = 0; v < panel_vectors; v++) sums[r][v] = multiply_add(w[v], value, sums[r][v]);
    }
  }
  for (uint32_t r = 0; r < rows; r++) {
    for (uint32_t v = 0; v < panel_vectors && v * lanes < columns; v++) {
      float* to = out + r * width + v * lanes;
      uint32_t left = columns - v * lanes;
      store_up_to(to, add ? load_up_to(to, left) + sums[r][v] : sums[r][v], left);
    }
  }
}

typedef void panel_function(const float* panel, const float* packed, uint32_t count, float* out, uint64_t width,
                            uint32_t columns, int add);

#define DEFINE_PANEL(rows)                                                                                  \
  static void panel_of_rows_##rows(const float* panel, const float* packed, uint32_t count, float* out,     \
                                   uint64_t width, uint32_t columns, int add) {                             \
    multiply_panel(panel, packed, packed_row, 1, count, rows, out, width, columns, add);                    \
  }                                                                                                         \
  static void panel_of_elements_##rows(const float* panel, const float* packed, uint32_t count, float* out, \
                                       uint64_t width, uint32_t columns, int add) {                         \
    multiply_panel(panel, packed, 1, packed_elements, count, rows, out, width, columns, add);               \
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

#define PANEL(rows) {panel_of_rows_##rows, panel_of_elements_##rows}

// By the number of rows, less one.
static const struct {
  panel_function *of_rows, *of_elements;
} panel_functions[] = {
    PANEL(1), PANEL(2), PANEL(3), PANEL(4),
#if !defined(__wasm__)
    PANEL(5), PANEL(6),
#endif
#if LANES == 16
    PANEL(7), PANEL(8), PANEL(9), PANEL(10), PANEL(11), PANEL(12),
#endif
};

// The part of a product that lies in these rows and columns of its result.
static void multiply_part(const struct product* product, struct range rows, struct range columns) {
  _Alignas(64) float panels[block_inner * block_columns];
  _Alignas(64) float packed[block_inner * packed_elements > panel_rows * packed_row ? block_inner * packed_elements
                                                                                    : panel_rows * packed_row];
  for (uint32_t c = columns.begin; c < columns.end; c += block_columns) {
    uint32_t width = columns.end - c < block_columns ? columns.end - c : block_columns;
    for (uint32_t k = 0; k < product->inner; k += block_inner) {
      uint32_t count = product->inner - k < block_inner ? product->inner - k : block_inner;
      for (uint32_t p = 0; p < width; p += panel_width) {
        fill_panel(product->right, c + p, k, count, width - p, panels + p * count);
      }
      // Rows are taken in parts of nearly the same height, since a part of one row would leave most registers idle.
      uint32_t height = rows.end - rows.begin, parts = (height + panel_rows - 1) / panel_rows;
      for (uint32_t part = 0, t = rows.begin, taken; part < parts; part++, t += taken) {
        taken = (rows.end - t) / (parts - part);
        pack_rows(product->left, t, k, taken, count, packed);
        panel_function* multiply =
            product->left.inner == 1 ? panel_functions[taken - 1].of_rows : panel_functions[taken - 1].of_elements;
        for (uint32_t p = 0; p < width; p += panel_width) {
          multiply(panels + p * count, packed, count, product->out + (uint64_t)t * product->columns + c + p,
                   product->columns, width - p, k > 0);
        }
      }
    }
  }
}

// A thread's share of a product: of its rows where there are more of them than columns, else of its columns. A sum over
// nothing is 0.
static void multiply_share(const struct product* product, uint32_t thread, uint32_t threads) {
  struct range rows = {0, product->rows}, columns = {0, product->columns};
  if (product->rows > product->columns) rows = share_of(product->rows, panel_rows, thread, threads);
  else columns = share_of(product->columns, 16, thread, threads);
  if (product->inner > 0) {
    multiply_part(product, rows, columns);
    return;
  }
  for (uint32_t r = rows.begin; r < rows.end; r++) {
    for (uint32_t c = columns.begin; c < columns.end; c++) product->out[(uint64_t)r * product->columns + c] = 0;
  }
}
