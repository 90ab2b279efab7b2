// Decides where threads wait for each other: between steps whose work they divide in different ways.

import type { FusedOperation } from "./fusion.js";

/**
 * Whether all threads wait for each other after a step: "fewRowsApart" where they need not as long as there are fewer rows than
 * threads, since a norm is then shared by channels.
 */
export type Barrier = "always" | "never" | "fewRowsApart";

/**
 * Kernels that work channel by channel divide the channels in the same way, so a thread finds its own channels done when it
 * continues with the next kernel. A norm needs whole rows.
 */
export function barrierBetween(step: readonly FusedOperation[], next: readonly FusedOperation[] | undefined): Barrier {
  const all = [...step, ...(next ?? [])];
  const shareAlike = all.every(({ sharedBy, channels }) => sharedBy && channels === all[0]?.channels);
  const byRows = ({ sharedBy }: FusedOperation) => sharedBy === "rows or channels";
  if (!next || !shareAlike || next.some(byRows)) return "always";
  if (!step.some(byRows)) return "never";
  // Kernels count the rows of a step's last operation, so all must have as many as the norm.
  const rows = new Set(step.flatMap(({ outputs }) => outputs.map((node) => node.rows)));
  return rows.size === 1 ? "fewRowsApart" : "always";
}
