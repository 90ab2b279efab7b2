// What backends share in loading weights: the type of each matrix; vectors and functions of vectors as float32.

import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { readFloat32 } from "../checkpoints/read-tensor.js";
import { elementCount, isBlockType, isFloatType, type WeightDType } from "../dtypes.js";
import { type Graph, topologicalOrder, type Vector, type WeightNode } from "../graph/graph.js";
import { unaryFunctions } from "./reference/operations.js";

/**
 * The type that each matrix is computed with: the wanted one, or as stored where kernels have it. Blocks are for products
 * only, so with a type of blocks embeddings stay as stored; and the head, on which each logit hangs, has 8 bits at least.
 */
export function matrixTypes(
  graph: Graph,
  tensors: ReadonlyMap<string, StoredTensor>,
  wanted: WeightDType | undefined,
): Map<WeightNode, WeightDType> {
  const asStored = ({ dtype }: StoredTensor) => (isFloatType(dtype) || isBlockType(dtype) ? dtype : "f32");
  const tables = new Set<WeightNode>();
  const recurrent = new Set<WeightNode>(); // their kernels take float32
  for (const node of topologicalOrder(graph.output)) {
    if (node.op === "embedding" || node.op === "addPosition") tables.add(node.table);
    if (node.op === "aft") tables.add(node.bias);
    if (node.op === "elman") recurrent.add(node.weight);
    if (node.op === "gru") for (const weight of node.weights) recurrent.add(weight);
  }
  const head = graph.output.op === "matmul" ? graph.output.weight : undefined;
  const types = new Map<WeightNode, WeightDType>();
  for (const weight of graph.weights.filter(({ op }) => op === "matrix")) {
    const stored = asStored(tensorOf(tensors, weight));
    if (recurrent.has(weight)) types.set(weight, "f32");
    else if (tables.has(weight)) {
      const type = wanted && !isBlockType(wanted) ? wanted : stored;
      types.set(weight, isBlockType(type) ? "f32" : type);
    } else types.set(weight, weight === head && wanted === "q4" ? "q8" : (wanted ?? stored));
  }
  return types;
}

/** The type that most of a model's matrices are computed with. */
export function mainType(types: ReadonlyMap<WeightNode, WeightDType>): WeightDType {
  const sizes = new Map<WeightDType, number>();
  for (const [{ shape }, type] of types) sizes.set(type, (sizes.get(type) ?? 0) + elementCount(shape));
  return [...sizes].reduce((most, next) => (next[1] > most[1] ? next : most))[0];
}

/** Reads all weights that are vectors. */
export async function readVectors(
  { weights }: Pick<Graph, "weights">,
  tensors: ReadonlyMap<string, StoredTensor>,
): Promise<Map<WeightNode, Float32Array>> {
  const vectors = weights.filter((weight) => weight.op === "vector");
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
