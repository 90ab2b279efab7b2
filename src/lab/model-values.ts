// Any value inside a model, for one text: the graph computed node by node in plain TypeScript.

import { evaluate } from "../backends/reference/evaluate.js";
import { vectorValues } from "../backends/weights.js";
import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { readFloat32 } from "../checkpoints/read-tensor.js";
import { type RowNode, topologicalOrder, type Vector, type WeightNode } from "../graph/graph.js";
import type { Rows } from "../graph/rows.js";
import { initialState, stateLayout } from "../graph/state-layout.js";
import type { BoundModel } from "../models/versions.js";

/** The values of some nodes, and the weights they were computed with. */
export interface ModelValues {
  of(node: RowNode): Rows;
  vector(vector: Vector): Float32Array;
}

/** Runs tokens from the empty state. @param nodes what is wanted; other values are computed only as they need it */
export async function modelValues(
  { graph, tensors }: BoundModel,
  tokens: readonly number[],
  nodes: readonly RowNode[],
): Promise<ModelValues> {
  const weights = new Map<WeightNode, Float32Array>();
  for (const weight of graph.weights) {
    weights.set(weight, await readFloat32(tensors.get(weight.name) as StoredTensor));
  }
  const layout = stateLayout(graph);
  const state = initialState(graph, (weight) => weights.get(weight) as Float32Array);
  const context = {
    matrix: (weight: WeightNode) => {
      const [rows, width] = weight.shape as [number, number];
      return { rows, width, values: weights.get(weight) as Float32Array, isInBlocks: false };
    },
    vector: (vector: Vector) => vectorValues(vector, weights),
    offset: ({ index }: { index: number }) => layout.offsets[index] as number,
  };
  const of = evaluate(topologicalOrder(...nodes), context, {
    ranges: [{ start: 0, count: tokens.length, state, nextState: state }],
    tokens,
    selected: tokens.map((_, i) => i),
    targets: [],
    seed: 0,
  });
  return { of, vector: context.vector };
}
