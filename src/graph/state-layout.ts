// Where each state vector lies in the block of floats that a sequence carries.

import type { Graph } from "./graph.js";

/** Offsets in floats, by the state vector's index, and the initial block. */
export interface StateLayout {
  readonly offsets: readonly number[];
  /** Floats in the block. */
  readonly length: number;
  /** The block before the first token. */
  readonly initial: Float32Array;
}

export function stateLayout(graph: Graph): StateLayout {
  const offsets: number[] = [];
  let length = 0;
  for (const { width } of graph.stateVectors) {
    offsets.push(length);
    length += width;
  }
  const initial = new Float32Array(length);
  for (const { index, width, initial: value } of graph.stateVectors) {
    const start = offsets[index] as number;
    initial.fill(value, start, start + width);
  }
  return { offsets, length, initial };
}
