// What backends share in loading weights: the type of each matrix; vectors and functions of vectors as float32.

import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { readFloat32 } from "../checkpoints/read-tensor.js";
import { type BlockType, elementCount, isBlockType, isFloatType, type WeightDType } from "../dtypes.js";
import type { Graph, Vector, WeightNode } from "../graph/graph.js";
import { plainUnary } from "../graph/operations/elementwise.js";
import { matrixUses } from "./matrix-uses.js";

/**
 * The type that each matrix is computed with: the wanted one, or as stored where kernels have it. Blocks are for products only, so
 * with a type of blocks embeddings stay as stored; and no matrix gets fewer bits than its model says.
 */
export function matrixTypes(
  graph: Graph,
  tensors: ReadonlyMap<string, StoredTensor>,
  wanted: WeightDType | undefined,
): Map<WeightNode, WeightDType> {
  const asStored = ({ dtype }: StoredTensor) => (isFloatType(dtype) || isBlockType(dtype) ? dtype : "f32");
  const { tables, recurrent } = matrixUses(graph);
  const types = new Map<WeightNode, WeightDType>();
  for (const weight of graph.weights.filter(({ op }) => op === "matrix")) {
    const stored = asStored(tensorOf(tensors, weight));
    const type = typeFor(weight, wanted ?? stored, stored);
    if (recurrent.has(weight)) types.set(weight, "f32");
    else if (!tables.has(weight) || !isBlockType(type)) types.set(weight, type);
    else types.set(weight, isBlockType(stored) ? "f32" : stored);
  }
  return types;
}

/** Blocks of no fewer bits than a matrix may have; it keeps what it is stored as where it may not be quantized at all. */
function typeFor({ fewestBits = 4 }: WeightNode, wanted: WeightDType, stored: WeightDType): WeightDType {
  if (!isBlockType(wanted) || wanted === stored || fewestBits <= bitsOf[wanted]) return wanted;
  return fewestBits === 8 ? "q8" : stored;
}

const bitsOf: Readonly<Record<BlockType, number>> = { q8: 8, q4: 4 };

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
