// From a graph and its weights to what a backend trains: which weights are learned, how fast, and the graph of their gradients.

import type { LearnedWeight, TrainableModel } from "../backends/training.js";
import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { differentiate } from "../graph/differentiate.js";
import type { Graph, RowNode, StateVector, WeightNode } from "../graph/graph.js";

/** What is learned, and how. */
export interface LearningOptions {
  /** Weights of the graph. */
  readonly weights: readonly WeightNode[];
  /** States that sequences begin with, and the weights that are written into them. */
  readonly states?: ReadonlyMap<StateVector, WeightNode>;
  readonly logitPenalty: number;
  readonly checkpointing?: boolean;
}

/** What the learning rate of time_decay and time_first is multiplied by, as in RWKV-LM v4 (src/model.py, configure_optimizers). */
const rateFactors: readonly (readonly [ending: string, factor: number])[] = [
  [".time_decay", 2],
  [".time_first", 3],
];

/** @param tensors the values to begin with */
export function trainableModel(
  graph: Graph,
  tensors: ReadonlyMap<string, StoredTensor>,
  options: LearningOptions,
): TrainableModel {
  const { states = new Map<StateVector, WeightNode>(), logitPenalty, checkpointing = false } = options;
  const training = differentiate(graph, {
    weights: new Set(options.weights),
    states: new Set(states.keys()),
    logitPenalty,
    checkpointing,
  });
  const learned = new Map<WeightNode, LearnedWeight>();
  const add = (weight: WeightNode, gradient: RowNode) => {
    const rateFactor = rateFactors.find(([ending]) => weight.name.endsWith(ending))?.[1] ?? 1;
    learned.set(weight, { gradient, rateFactor, decays: weight.op === "matrix" });
  };
  for (const [weight, gradient] of training.weights) add(weight, gradient);
  for (const [state, gradient] of training.states) add(states.get(state) as WeightNode, gradient);
  return { graph, tensors, training, learned };
}
