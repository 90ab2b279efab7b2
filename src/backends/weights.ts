// What backends share in loading weights: the type of each matrix; vectors and functions of vectors as float32.

import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { readFloat32 } from "../checkpoints/read-tensor.js";
import { elementCount, isBlockType, isFloatType, type WeightDType } from "../dtypes.js";
import {
  callsOf,
  type Graph,
  type MatrixUse,
  matricesOf,
  topologicalOrder,
  type Vector,
  type WeightNode,
} from "../graph/graph.js";
import { plainUnary } from "../graph/operations/elementwise.js";
import { matmul } from "../graph/operations/matmul.js";

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
  const uses = matrixUses(graph);
  const head = matmul.operandsOf(graph.output.call)?.weight;
  const types = new Map<WeightNode, WeightDType>();
  for (const weight of graph.weights.filter(({ op }) => op === "matrix")) {
    const stored = asStored(tensorOf(tensors, weight));
    const use = uses.get(weight);
    if (use === "float32") types.set(weight, "f32");
    else if (use === "table") {
      const type = wanted && !isBlockType(wanted) ? wanted : stored;
      types.set(weight, isBlockType(type) ? "f32" : type);
    } else types.set(weight, weight === head && wanted === "q4" ? "q8" : (wanted ?? stored));
  }
  return types;
}

/** What the kernels that take each matrix can do with it: of several uses the one that allows the fewest types. */
function matrixUses(graph: Graph): Map<WeightNode, MatrixUse> {
  const strictness: readonly MatrixUse[] = ["product", "table", "float32"];
  const uses = new Map<WeightNode, MatrixUse>();
  for (const call of callsOf(topologicalOrder(graph.output))) {
    const own = Object.values(call.operation.matrices);
    matricesOf(call).forEach((weight, i) => {
      const [use, before] = [own[i] as MatrixUse, uses.get(weight) ?? "product"];
      uses.set(weight, strictness.indexOf(use) > strictness.indexOf(before) ? use : before);
    });
  }
  return uses;
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
