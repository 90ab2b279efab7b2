// Tiles, the matrix registers of some x86 processors (AMX; Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1,
// chapter 18): one instruction multiplies sixteen rows of bytes by sixteen columns. Written as assembly, since compilers older than
// the instructions would refuse their intrinsics, and need not know them. Linux alone, where a process asks for them first.
#pragma once

#include <stdint.h>

#if defined(__x86_64__) && defined(__linux__) && (defined(__AVX512VNNI__) || !defined(LEVEL))
#define HAS_TILES 1
#else
#define HAS_TILES 0
#endif

// What the instruction that sets sizes reads.
struct tile_sizes {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

#if HAS_TILES && !defined(TILES_ARE_EMULATED)

#include <cpuid.h>

// Whether the processor has tiles for bytes, and the system lets this process use them. The kernel grants what is asked for to all
// threads of a process, and saves tiles of those alone that have used them.
static inline int tiles_are_allowed(void) {
  enum { leaf = 7, tiles_and_bytes = 3 << 24, system_call = 158, request_permission = 0x1023, tile_data = 18 };
  uint32_t a, b, c, d;
  if (!__get_cpuid_count(leaf, 0, &a, &b, &c, &d) || (d & tiles_and_bytes) != tiles_and_bytes) return 0;
  long result = system_call;
  __asm__ volatile("syscall" : "+a"(result) : "D"((long)request_permission), "S"((long)tile_data) : "rcx", "r11", "memory");
  return result == 0;
}

static inline void set_tile_sizes(const struct tile_sizes* sizes) { __asm__ volatile("ldtilecfg %0" ::"m"(*sizes)); }
static inline void release_tiles(void) { __asm__ volatile("tilerelease"); }

// totals[r][o] = sum over k of x[r][k] * weights[k / 4][o][k % 4]; rows of x are `stride` bytes apart. There are two of it, whose
// registers are others, so that one need not wait for the other.
#define DEFINE_TILE_PRODUCT(name, sum, left, right)                                                            \
  static inline void name(const int8_t* x, uint64_t stride, const int8_t* weights, int32_t* totals) {          \
    __asm__ volatile("tilezero %%tmm" #sum                                                                     \
                     "\n\ttileloadd (%0,%1,1), %%tmm" #left                                                    \
                     "\n\ttileloadd (%2,%3,1), %%tmm" #right                                                   \
                     "\n\ttdpbssd %%tmm" #right ", %%tmm" #left ", %%tmm" #sum                                 \
                     "\n\ttilestored %%tmm" #sum ", (%4,%3,1)" ::"r"(x),                                       \
                     "r"(stride), "r"(weights), "r"((uint64_t)64), "r"(totals)                                 \
                     : "memory");                                                                              \
  }
DEFINE_TILE_PRODUCT(first_tile_product, 0, 2, 4)
DEFINE_TILE_PRODUCT(second_tile_product, 1, 3, 5)

#endif
