// All kernels, as one translation unit. The native library has it several times, once for each level of instruction sets
// (src/backends/native/instruction-levels.ts), with LEVEL naming the level; native.c chooses among them at run time.
// WebAssembly has it once a build; a build that only generates does without training and the lab.

#include "choose.c"
#include "elementwise.c"
#include "lay_by_input.c"
#include "matmul.c"
#include "matmul_by_input.c"
#include "mix.c"
#include "norm.c"
#include "heads.c"
#include "plan.c"
#include "probe.c"
#include "quantize.c"
#include "quantize_weights.c"
#include "rows.c"
#include "wkv.c"
#include "wkv6.c"
#include "wkv7.c"

#if !defined(ONLY_GENERATION)
#include "dropout.c"
#include "loss.c"
#include "matmul_gradient.c"
#include "mix_gradient.c"
#include "norm_gradient.c"
#include "optimizer.c"
#include "rows_gradient.c"
#include "wkv_gradient.c"
#include "wkv6_gradient.c"
#include "wkv7_gradient.c"

#include "lab/aft.c"
#include "lab/aft_gradient.c"
#include "lab/attention.c"
#include "lab/linear_attention.c"
#include "lab/position.c"
#include "lab/recurrence.c"
#endif

// WebAssembly has no mapped files to convert from, and pages need not download what they cannot use.
#if !defined(__wasm__)
#include "convert.c"
#endif
