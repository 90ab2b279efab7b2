// Where threads wait for each other: between steps whose work they do not share alike.

import type { FusedOperation } from "./fusion.js";

/**
 * Whether all threads wait for each other after a step: "fewRowsApart" where they need not as long as there are fewer rows than
 * threads, since a norm is then shared by channels.
 */
export type Barrier = "always" | "never" | "fewRowsApart";

/**
 * Kernels that work channel by channel share the channels alike, so a thread that goes from one to the next finds its own
 * channels done. A norm needs whole rows before it.
 */
export function barrierBetween(step: readonly FusedOperation[], next: readonly FusedOperation[] | undefined): Barrier {
  const all = [...step, ...(next ?? [])];
  const shareAlike = all.every(({ sharedBy, channels }) => sharedBy && channels === all[0]?.channels);
  const byRows = ({ sharedBy }: FusedOperation) => sharedBy === "rows or channels";
  if (!next || !shareAlike || next.some(byRows)) return "always";
  return step.some(byRows) ? "fewRowsApart" : "never";
}
