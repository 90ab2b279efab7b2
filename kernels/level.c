// All kernels, as one translation unit. The native library has it several times, once for each level of instruction sets
// (src/backends/native/instruction-levels.ts), with LEVEL naming the level; native.c chooses among them at run time.
// WebAssembly has it once a build.

#include "aft.c"
#include "aft_gradient.c"
#include "attention.c"
#include "choose.c"
#include "elementwise.c"
#include "linear_attention.c"
#include "loss.c"
#include "matmul.c"
#include "matmul_gradient.c"
#include "mix.c"
#include "norm.c"
#include "optimizer.c"
#include "plan.c"
#include "probe.c"
#include "quantize.c"
#include "quantize_weights.c"
#include "recurrence.c"
#include "rows.c"
#include "wkv.c"

// WebAssembly has no mapped files to convert from, and pages need not download what they cannot use.
#if !defined(__wasm__)
#include "convert.c"
#endif
