// One function a kernel: the share of `thread` in `record`. All kernels are one translation unit (level.c), so that an
// instruction set is chosen for them together.
#pragma once

#include "plan.h"

// Each is a function of its own: inlined into one, all of them are more than a compiler, WebAssembly's above all, finds registers
// for.
#define NOT_INLINED static __attribute__((noinline))

#define KERNEL(name, function) \
  NOT_INLINED void function(const struct pass* pass, const struct record* record, uint32_t thread);
#include "all_operations.def"
#undef KERNEL
