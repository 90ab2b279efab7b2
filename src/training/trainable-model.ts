// From a graph and its weights to what a backend trains: which weights are learned, how fast, and the graph of their gradients.

import type { LearnedWeight, TrainableModel } from "../backends/training.js";
import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { differentiate } from "../graph/differentiate.js";
import type { Graph, RowNode, StateVector, WeightNode } from "../graph/graph.js";
import type { WeightLearning } from "../models/model-definition.js";

/** What is learned, and how. */
export interface LearningOptions {
  /** Weights of the graph. */
  readonly weights: readonly WeightNode[];
  /** States that sequences begin with, and the weights that are written into them. */
  readonly states?: ReadonlyMap<StateVector, WeightNode>;
  /** How each is learned; by default all alike, and matrices decay. */
  readonly learning?: (weight: WeightNode) => WeightLearning;
  readonly logitPenalty: number;
  readonly checkpointing?: boolean;
}

const alike = ({ op }: WeightNode): WeightLearning => ({ rateFactor: 1, decays: op === "matrix" });

/** @param tensors the values to begin with */
export function trainableModel(
  graph: Graph,
  tensors: ReadonlyMap<string, StoredTensor>,
  options: LearningOptions,
): TrainableModel {
  const { states = new Map<StateVector, WeightNode>(), learning = alike } = options;
  const { logitPenalty, checkpointing = false } = options;
  const training = differentiate(graph, {
    weights: new Set(options.weights),
    states: new Set(states.keys()),
    logitPenalty,
    checkpointing,
  });
  const learned = new Map<WeightNode, LearnedWeight>();
  const add = (weight: WeightNode, gradient: RowNode) => {
    learned.set(weight, { gradient, ...learning(weight) });
  };
  for (const [weight, gradient] of training.weights) add(weight, gradient);
  for (const [state, gradient] of training.states) add(states.get(state) as WeightNode, gradient);
  return { graph, tensors, training, learned };
}
