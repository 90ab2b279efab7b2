// Outputs of a product that threads claim, one piece after the other. Threads of equal shares do not end at the same time:
// another program, or another machine on the same processor, slows one of them down, and the others would wait. So a thread
// first takes most of its own share, and then pieces of what is left of all shares, until there are none. Which thread
// computes an output does not change it.
#pragma once

#include "plan.h"

// Of a share as much is a thread's own; the rest is cut into so many pieces. Smaller pieces would begin, with nothing in the
// caches yet, as often as they save waiting.
enum { own_eighths = 5, pieces_of_share = 4, least_claimed_grains = 8 };

// The part of a thread's share that may be claimed; empty where the share is small, or nobody counts claims.
static inline struct range claimable_of(const struct pass* pass, uint32_t total, uint32_t grain, uint32_t thread) {
  struct range share = share_of(total, grain, thread, pass->thread_count);
  uint32_t grains = (share.end - share.begin) / grain;
  if (!pass->claims || pass->thread_count == 1 || grains < least_claimed_grains) return (struct range){share.end, share.end};
  return (struct range){share.begin + grains * own_eighths / 8 * grain, share.end};
}

// What a thread begins with.
static inline struct range own_part_of(const struct pass* pass, uint32_t total, uint32_t grain, uint32_t thread) {
  return (struct range){share_of(total, grain, thread, pass->thread_count).begin,
                        claimable_of(pass, total, grain, thread).begin};
}

// Takes the next piece of a record's outputs. Returns 0 when there is none.
static inline int claim_piece(const struct pass* pass, const struct record* record, uint32_t total, uint32_t grain,
                              struct range* piece) {
  if (!pass->claims) return 0;
  // A counter for every 64 bytes of records, of which each has its own.
  uint32_t* claims = (uint32_t*)(uintptr_t)pass->claims + ((uint64_t)(uintptr_t)record - pass->records) / 64;
  for (;;) {
    uint32_t number = __atomic_fetch_add(claims, 1, __ATOMIC_RELAXED);
    if (number >= pieces_of_share * pass->thread_count) return 0;
    struct range part = claimable_of(pass, total, grain, number % pass->thread_count);
    struct range own = share_of(part.end - part.begin, grain, number / pass->thread_count, pieces_of_share);
    if (own.begin == own.end) continue;
    *piece = (struct range){part.begin + own.begin, part.begin + own.end};
    return 1;
  }
}
