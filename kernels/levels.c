// The choice of a level of instruction sets. The names are those of src/backends/native/instruction-levels.ts.

#include "levels.h"

#include <string.h>

#include "tiles.h"

#if defined(__x86_64__)
#define LEVELS(LEVEL)                                                                                              \
  LEVEL(sse4, __builtin_cpu_supports("sse4.1"))                                                                    \
  LEVEL(avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))                                     \
  LEVEL(avx512, __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&                        \
                    __builtin_cpu_supports("avx512dq"))                                                            \
  LEVEL(avx512vnni, __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&                    \
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni"))
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#define LEVELS(LEVEL) LEVEL(neon, 1) LEVEL(dotprod, (getauxval(AT_HWCAP) >> 20) & 1)
#elif defined(__aarch64__)
#define LEVELS(LEVEL) LEVEL(neon, 1) LEVEL(dotprod, 1)  // every processor of Apple's that runs this
#else
#define LEVELS(LEVEL) LEVEL(plain, 1)
#endif

#define DECLARE_LEVEL(name, supported)                      \
  void run_pass_##name(struct pass* pass, uint32_t thread); \
  uint32_t lane_count_##name(void);                         \
  static int has_##name(void) { return supported; }
LEVELS(DECLARE_LEVEL)

#if HAS_TILES
// The kernels of the level below, of which some have another way.
static int has_avx512tiles(void) {
  static int answer = -1;
  if (answer < 0) answer = has_avx512vnni() && tiles_are_allowed();
  return answer;
}
#define TILED_LEVEL {"avx512tiles", has_avx512tiles, run_pass_avx512vnni, lane_count_avx512vnni, 1},
#else
#define TILED_LEVEL
#endif

// Lowest first.
#define LIST_LEVEL(name, supported) {#name, has_##name, run_pass_##name, lane_count_##name, 0},
static const struct level levels[] = {LEVELS(LIST_LEVEL) TILED_LEVEL};
enum { level_count = sizeof levels / sizeof levels[0] };

int32_t find_level(const char* name) {
  for (int32_t i = level_count - 1; i >= 0; i--) {
    if ((name[0] == 0 || strcmp(name, levels[i].name) == 0) && levels[i].supported()) return i;
  }
  return -1;
}

const struct level* level_at(int32_t number) {
  return number >= 0 && number < level_count && levels[number].supported() ? &levels[number] : NULL;
}
