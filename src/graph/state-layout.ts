// Where each state vector lies in the block of floats that a sequence carries, and what the block holds before the first token.

import type { GraphPart, WeightNode } from "./graph.js";

/** Where state vectors lie. */
export interface StateLayout {
  /** In floats, by the index of the state vector; of some layers of a model only those of their own are there. */
  readonly offsets: readonly number[];
  /** Floats in the block. */
  readonly length: number;
}

export function stateLayout({ stateVectors }: Pick<GraphPart, "stateVectors">): StateLayout {
  const offsets: number[] = [];
  let length = 0;
  for (const { index, width } of stateVectors) {
    offsets[index] = length;
    length += width;
  }
  return { offsets, length };
}

/** The block before the first token. @param valuesOf the elements of a vector weight */
export function initialState(
  graph: Pick<GraphPart, "stateVectors">,
  valuesOf: (weight: WeightNode) => ArrayLike<number>,
): Float32Array {
  const { offsets, length } = stateLayout(graph);
  const block = new Float32Array(length);
  for (const { index, width, initial } of graph.stateVectors) {
    const start = offsets[index] as number;
    // Zeros are there already, and memory that nobody writes to takes none: a model of 13 billion weights has 66 MB of them.
    if (initial === 0) continue;
    if (typeof initial === "number") block.fill(initial, start, start + width);
    else block.set(valuesOf(initial), start);
  }
  return block;
}
