// What backends share in loading weights: vectors and functions of vectors as float32.

import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { readFloat32 } from "../checkpoints/read-tensor.js";
import { elementCount, type WeightDType } from "../dtypes.js";
import type { Graph, Vector, WeightNode } from "../graph/graph.js";
import { unaryFunctions } from "./reference/operations.js";

/** The type that a matrix is computed with: the wanted one, or as stored where kernels have it. */
export function workingDType(stored: StoredTensor, wanted: WeightDType | undefined): WeightDType {
  if (wanted) return wanted;
  return stored.dtype === "f16" || stored.dtype === "bf16" ? stored.dtype : "f32";
}

/** Reads all vector weights of a graph. */
export async function readVectors(
  graph: Graph,
  tensors: ReadonlyMap<string, StoredTensor>,
): Promise<Map<WeightNode, Float32Array>> {
  const vectors = graph.weights.filter((weight) => weight.op === "vector");
  const read = vectors.map(async (weight) => [weight, await readFloat32(tensorOf(tensors, weight))] as const);
  return new Map(await Promise.all(read));
}

/** The elements of a vector: a weight, or a function of one. */
export function vectorValues(vector: Vector, weights: ReadonlyMap<WeightNode, Float32Array>): Float32Array {
  if (vector.op === "vectorFunction") return vectorValues(vector.x, weights).map(unaryFunctions[vector.function]);
  return weights.get(vector) as Float32Array;
}

export function tensorOf(tensors: ReadonlyMap<string, StoredTensor>, weight: WeightNode): StoredTensor {
  const tensor = tensors.get(weight.name);
  if (!tensor || elementCount(tensor.shape) !== elementCount(weight.shape)) {
    throw new RangeError(`weight ${weight.name} is not bound`);
  }
  return tensor;
}
