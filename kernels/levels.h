// The levels of instruction sets that the native library holds the kernels for.
#pragma once

#include <stdint.h>

#include "plan.h"

struct level {
  const char* name;
  int (*supported)(void);
  void (*run_pass)(struct pass* pass, uint32_t thread);
  uint32_t (*lanes)(void);
  int has_tiles;
};

// The number of the level that is called `name`, or of the highest one that this processor has where `name` is empty;
// -1 where it has not.
int32_t find_level(const char* name);

// The level of a number; NULL where there is none, or this processor has it not.
const struct level* level_at(int32_t number);
