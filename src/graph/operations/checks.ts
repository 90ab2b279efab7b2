// Checks that shape rules share; each error names the operation.

import type { RowNode, StateVector, Vector } from "../graph.js";

/** @throws RangeError unless all vectors are as long as rows are wide */
export function requireLength(name: string, width: number, ...vectors: readonly Vector[]): void {
  for (const { shape } of vectors) {
    if (shape[0] !== width) throw new RangeError(`${name}: rows of ${width}, a vector of ${shape[0]}`);
  }
}

/** @throws RangeError unless all rows are as wide as the first */
export function requireWidth(name: string, first: RowNode, ...others: readonly RowNode[]): void {
  for (const { width } of others) {
    if (width !== first.width) throw new RangeError(`${name}: rows of ${first.width} and of ${width}`);
  }
}

/** @throws RangeError unless there is a row for every token */
export function requireTokens(name: string, ...all: readonly RowNode[]): void {
  for (const { rows } of all) {
    if (rows !== "tokens") throw new RangeError(`${name}: walks along time, so it needs a row for every token`);
  }
}

/** @throws RangeError unless a state has this many floats */
export function requireState(name: string, width: number, ...states: readonly StateVector[]): void {
  for (const state of states) {
    if (state.width !== width) throw new RangeError(`${name}: a state of ${width} floats, found ${state.width}`);
  }
}
