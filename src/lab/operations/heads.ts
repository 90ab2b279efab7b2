// What kinds of attention have in common: queries, keys and values, in heads.

import type { GradientContext, RowNode } from "../../graph/graph.js";
import { requireTokens, requireWidth } from "../../graph/operations/checks.js";
import { type Rows, zeros } from "../../graph/rows.js";

/** What attention takes, and what has gradients. */
export const attentionInputs = ["query", "key", "value"] as const;

/** Queries, keys and values. */
export type Attended<T> = { readonly [Name in (typeof attentionInputs)[number]]: T };

/** Those in `heads` parts of their width. */
export interface HeadRows extends Attended<Rows> {
  readonly heads: number;
}

/** Zeros for the gradients of all three. */
export function zeroGradients({ rows, width, values }: Rows): Attended<Rows> {
  return { query: zeros(rows, width, values), key: zeros(rows, width, values), value: zeros(rows, width, values) };
}

/** The values of all three, to be used in gradients. */
export function valuesFor(context: GradientContext, { query, key, value }: Attended<RowNode>): Attended<RowNode> {
  return { query: context.value(query), key: context.value(key), value: context.value(value) };
}

/** Queries, keys and values, or some of them, in `heads` parts of their width, each at most `widest` channels. */
export function requireHeads(name: string, rows: readonly RowNode[], heads: number, widest: number): void {
  const [first] = rows as readonly [RowNode];
  requireTokens(name, ...rows);
  requireWidth(name, ...(rows as readonly [RowNode]));
  if (first.width % heads !== 0 || first.width / heads > widest) {
    throw new RangeError(`${name}: rows of ${first.width} in ${heads} heads, each at most ${widest} wide`);
  }
}
