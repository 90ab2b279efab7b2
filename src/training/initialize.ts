// The weights that training from nothing begins with, as tensors in memory.

import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { storedTensor } from "../checkpoints/memory-tensor.js";
import type { Graph } from "../graph/graph.js";
import { uninterrupted } from "../interruptible.js";
import type { FirstValuesOptions, ModelDefinition } from "../models/model-definition.js";

/** The first values of every weight of a version's graph, by name. */
export function firstTensors(
  definition: Pick<ModelDefinition, "training">,
  graph: Graph,
  options: FirstValuesOptions,
): Map<string, StoredTensor> {
  return uninterrupted(firstTensorsInSteps(definition, graph, options));
}

/** The same in steps; with matrices of many thousand rows it takes a while. */
export function* firstTensorsInSteps(
  { training }: Pick<ModelDefinition, "training">,
  { weights }: Graph,
  options: FirstValuesOptions,
): Generator<void, Map<string, StoredTensor>, void> {
  const tensors = new Map<string, StoredTensor>();
  for (const weight of weights) {
    const { name, shape } = weight;
    tensors.set(name, storedTensor(name, shape, yield* training.firstValues(weight, options)));
    yield;
  }
  return tensors;
}

export { storedTensor };
