// What backends share in loading weights: vectors and functions of vectors as float32.

import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { readFloat32 } from "../checkpoints/read-tensor.js";
import { elementCount } from "../dtypes.js";
import type { GraphPart, Vector, WeightNode } from "../graph/graph.js";
import { plainUnary } from "../graph/operations/elementwise.js";

/** Reads all weights that are vectors. */
export async function readVectors(
  { weights }: Pick<GraphPart, "weights">,
  tensors: ReadonlyMap<string, StoredTensor>,
): Promise<Map<WeightNode, Float32Array>> {
  const vectors = weights.filter((weight) => weight.op === "vector");
  const read = vectors.map(async (weight) => [weight, await readFloat32(tensorOf(tensors, weight))] as const);
  return new Map(await Promise.all(read));
}

/** The elements of a vector: a weight, or a function of one. */
export function vectorValues(vector: Vector, weights: ReadonlyMap<WeightNode, Float32Array>): Float32Array {
  if (vector.op === "vectorFunction") return vectorValues(vector.x, weights).map(plainUnary(vector.function));
  return weights.get(vector) as Float32Array;
}

export function tensorOf(tensors: ReadonlyMap<string, StoredTensor>, weight: WeightNode): StoredTensor {
  const tensor = tensors.get(weight.name);
  if (!tensor || elementCount(tensor.shape) !== elementCount(weight.shape)) {
    throw new RangeError(`weight ${weight.name} is not bound`);
  }
  return tensor;
}
