// The indices that a pass takes its rows by. They are checked once, before the first record, so that kernels need not
// look at them again and no state has advanced when one is wrong.
#pragma once

#include "choice.h"
#include "plan.h"

static inline int all_below(uint64_t address, uint32_t count, uint32_t limit) {
  const int32_t* indices = (const int32_t*)(uintptr_t)address;
  uint32_t largest = 0;  // a negative one is larger than any limit
  for (uint32_t i = 0; i < count; i++) largest = largest > (uint32_t)indices[i] ? largest : (uint32_t)indices[i];
  return count == 0 || largest < limit;
}

static inline int segments_inside(const struct pass* pass) {
  const struct segment* segments = (const struct segment*)(uintptr_t)pass->segments;
  for (uint32_t s = 0; s < pass->segment_count; s++) {
    if ((uint64_t)segments[s].start + segments[s].count > pass->token_count) return 0;
  }
  return 1;
}

static inline int adjustments_inside(const struct pass* pass, const struct record* record) {
  const struct choice* choices = (const struct choice*)(uintptr_t)record->address[1];
  for (uint32_t row = 0; row < pass->selected_count; row++) {
    if (!choices[row].wanted) continue;
    const struct adjustment* adjustments = (const struct adjustment*)(uintptr_t)choices[row].adjustments;
    for (uint32_t i = 0; i < choices[row].adjustment_count; i++) {
      if ((uint32_t)adjustments[i].token >= record->width) return 0;
    }
  }
  return 1;
}

// What is wrong with the indices of a pass; PASS_COMPLETE where all are inside what they point into.
static inline uint32_t fault_of(const struct pass* pass) {
  if (!segments_inside(pass)) return PASS_WRONG_SEGMENT;
  const struct record* record = (const struct record*)(uintptr_t)pass->records;
  for (uint32_t i = 0; i < pass->record_count; i++, record = record_after(record)) {
    switch (record->kernel) {
      case KERNEL_embedding:
        if (!all_below(pass->tokens, pass->token_count, record->matrix_rows)) return PASS_WRONG_TOKEN;
        break;
      case KERNEL_selectRows:
        if (!all_below(pass->selected, pass->selected_count, pass->token_count)) return PASS_WRONG_ROW;
        break;
#if !defined(ONLY_GENERATION)
      case KERNEL_embeddingGradient:
        if (!all_below(pass->tokens, pass->token_count, record->rows)) return PASS_WRONG_TOKEN;
        break;
      case KERNEL_scatterRows:
        if (!all_below(pass->selected, pass->selected_count, pass->token_count)) return PASS_WRONG_ROW;
        break;
      case KERNEL_crossEntropy:
        if (!all_below(pass->targets, pass->selected_count, record->inputs)) return PASS_WRONG_TARGET;
        break;
#endif
      case KERNEL_choose:
        if (!adjustments_inside(pass, record)) return PASS_WRONG_ADJUSTMENT;
        break;
    }
  }
  return PASS_COMPLETE;
}
