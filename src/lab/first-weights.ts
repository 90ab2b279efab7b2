// Weights that the architectures of the lab begin with.

import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { elementCount } from "../dtypes.js";
import type { Graph, WeightNode } from "../graph/graph.js";
import { normal } from "../models/initial-values.js";
import type { RandomGenerator } from "../sampling/random.js";
import { firstTensors, storedTensor } from "../training/initialize.js";
import type { Architecture, ArchitectureSize } from "./architectures/architecture.js";

/**
 * The first values of an RWKV version; of others matrices are normally distributed, over the square root of what they sum over. Embeddings are small, before a norm; biases of
 * positions begin as 0, norms as 1 and 0.
 *
 * @param embeddingRange embeddings are uniform in plus or minus this
 */
export function firstWeights(
  { version }: Architecture,
  size: ArchitectureSize,
  graph: Graph,
  embeddingRange: number,
  random: RandomGenerator,
): Map<string, StoredTensor> {
  if (version) return firstTensors(version.definition, graph, { size: version.sizeOf(size), embeddingRange, random });
  const drawerOf = ({ name, op, shape }: WeightNode): (() => number) => {
    if (op === "vector") return () => (name.endsWith(".weight") ? 1 : 0);
    if (name === "emb.weight") return () => (2 * random.uniform() - 1) * embeddingRange;
    if (name === "positions.weight" || name.endsWith(".bias.weight")) return () => 0;
    const scale = (name === "head.weight" ? 0.5 : 1) / Math.sqrt(shape[1] as number);
    return () => scale * normal(random);
  };
  return new Map(
    graph.weights.map((weight) => {
      const draw = drawerOf(weight);
      const values = Float32Array.from({ length: elementCount(weight.shape) }, draw);
      return [weight.name, storedTensor(weight.name, weight.shape, values)];
    }),
  );
}
