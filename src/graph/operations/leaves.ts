// Values that are there before a pass: vectors as rows, and constants. They take no work; a record reads them where they lie.

import type { RowNode, Vector } from "../graph.js";
import { operation } from "../operation.js";

const vectorRowOperation = operation({
  name: "vectorRow",
  vectors: ["vector"],
  outputs: ["result"],
  isLeaf: true,
  shape: ({ vector }) => ({ result: { rows: 1, width: vector.shape[0] as number } }),
  reference: ({ vector }) => ({ result: { rows: 1, width: vector.length, values: vector } }),
  gradient: ({ operands: { vector }, gradients }, context) => {
    context.addVector(vector, () => gradients.result as RowNode);
  },
});

const constantOperation = operation({
  name: "constant",
  attributes: { value: "number", width: "count" },
  outputs: ["result"],
  isLeaf: true,
  shape: ({ width }) => ({ result: { rows: 1, width } }),
  reference: ({ value, width }) => ({ result: { rows: 1, width, values: new Float64Array(width).fill(value) } }),
  gradient: { none: "it never changes" },
});

/** A vector as one row: an operand of elementwise functions that stands for all rows. */
export function vectorRow(vector: Vector): RowNode {
  return vectorRowOperation.apply({ vector }).result;
}

/** A number as an operand of elementwise functions; given a width, a row of it, which makes the result as wide. */
export function constant(value: number, width = 1): RowNode {
  return constantOperation.apply({ value, width }).result;
}

/** The vector that a node is. */
export function vectorIn(node: RowNode): Vector | undefined {
  return vectorRowOperation.operandsOf(node.call)?.vector;
}

/** The number that a node is. */
export function constantIn(node: RowNode): number | undefined {
  return constantOperation.operandsOf(node.call)?.value;
}
