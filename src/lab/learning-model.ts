// A model of the lab that learns all of its weights, made once it is known that they fit.

import type { TrainableModel } from "../backends/training.js";
import { TrainingError } from "../errors.js";
import type { Graph } from "../graph/graph.js";
import { checkMemory } from "../training/memory.js";
import { type LearningOptions, trainableModel } from "../training/trainable-model.js";

/**
 * The model, with no values of weights yet. @throws TrainingError, beginning with `what`, when the machine has too little memory
 * for a step
 */
export function checkedModel(
  what: string,
  graph: Graph,
  maxTokens: number,
  options: Partial<LearningOptions> = {},
): TrainableModel {
  const model = trainableModel(graph, new Map(), { weights: graph.weights, logitPenalty: 0, ...options });
  try {
    checkMemory(model, maxTokens);
  } catch (error) {
    if (error instanceof TrainingError) throw new TrainingError(`${what}: ${error.message}`);
    throw error;
  }
  return model;
}
