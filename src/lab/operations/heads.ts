// What kinds of attention check of their heads.

import type { RowNode } from "../../graph/graph.js";
import { requireTokens, requireWidth } from "../../graph/operations/checks.js";

/** Queries, keys and values, or some of them, in `heads` parts of their width, each at most `widest` channels. */
export function requireHeads(name: string, rows: readonly RowNode[], heads: number, widest: number): void {
  const [first] = rows as readonly [RowNode];
  requireTokens(name, ...rows);
  requireWidth(name, ...(rows as readonly [RowNode]));
  if (first.width % heads !== 0 || first.width / heads > widest) {
    throw new RangeError(`${name}: rows of ${first.width} in ${heads} heads, each at most ${widest} wide`);
  }
}
