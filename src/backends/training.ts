// What every backend does for training: holds weights, their gradients and moments, and runs steps over batches.

import type { StoredTensor } from "../checkpoints/checkpoint.js";
import type { TrainingGraph } from "../graph/differentiate.js";
import type { Graph, RowNode, WeightNode } from "../graph/graph.js";
import type { BackendName, ResidentState } from "./backend.js";

/** Names of the backends that train. */
export type TrainingBackendName = Exclude<BackendName, "webgpu">;

/** A weight that is learned. */
export interface LearnedWeight {
  /** Its gradient: a matrix [outputs, inputs], or a row. */
  readonly gradient: RowNode;
  /** What the learning rate is multiplied by. */
  readonly rateFactor: number;
  /** Whether weight decay applies. */
  readonly decays: boolean;
}

/** A model as training needs it. */
export interface TrainableModel {
  readonly graph: Graph;
  /** Values to begin with, of all weights of the graph and all that are learned, by name. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly training: TrainingGraph;
  readonly learned: ReadonlyMap<WeightNode, LearnedWeight>;
}

/** Consecutive tokens of one sequence, and for each the token that should follow; none where that is negative. */
export interface TrainingSegment {
  readonly state: ResidentState;
  /** The state that receives the result, a different one from `state`, which the gradient needs unchanged. */
  readonly nextState: ResidentState;
  readonly tokens: ArrayLike<number>;
  readonly targets: ArrayLike<number>;
}

/** The settings of one step of AdamW (arXiv 1711.05101). */
export interface OptimizerSettings {
  /** Number of this step, from 1. */
  readonly step: number;
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  /** All gradients together, if longer, are shortened to this. */
  readonly maxGradientNorm: number;
}

/** A weight that is learned, as it is now. */
export interface Parameter {
  readonly name: string;
  readonly shape: readonly number[];
  readonly values: Float32Array;
  /** The gradient of the last step. */
  readonly gradient: Float32Array;
  readonly firstMoment: Float32Array;
  readonly secondMoment: Float32Array;
}

export interface StepResult {
  /** The loss of each token with a target, in nats. */
  readonly losses: Float32Array;
  /** Euclidean norm of all gradients together. Where it is not a finite number no weight was changed. */
  readonly gradientNorm: number;
}

/** A step that several processes share: each has its own segments, and all come to the same weights. */
export interface SharedStep {
  /** Targets of all segments of all processes; the loss is the mean over them. */
  readonly targetCount: number;
  /** Tokens of the segments that come before those of this process. */
  readonly firstRow: number;
  /**
   * Adds up arrays over all processes, in place. It is called for gradients as soon as they are computed, while others still are,
   * on every process for the same ones in the same order.
   */
  sum(gradients: readonly Float32Array[]): Promise<void>;
}

/** A model being trained on a backend. */
export interface TrainingRuntime {
  readonly threads: number;
  /** What is learned, in the order of the model's weights. Values may be written between steps. */
  readonly parameters: readonly Parameter[];
  /** Bytes of weights, gradients, moments and intermediate values. */
  readonly memory: number;
  createState(): ResidentState;
  /** Losses alone: nothing is learned, dropout leaves nothing out. */
  evaluate(segments: readonly TrainingSegment[]): Promise<Float32Array>;
  /**
   * Losses, gradients, and one step of the optimizer.
   *
   * @param seed of dropout
   * @param shared where other processes have a part of the step; losses are then those of this one
   */
  step(
    segments: readonly TrainingSegment[],
    settings: OptimizerSettings,
    seed: number,
    shared?: SharedStep,
  ): Promise<StepResult>;
  dispose(): Promise<void>;
}

/** How to bring a model onto a backend to train it. */
export interface TrainingOptions {
  readonly threads: number;
  /** Most tokens of a step, over all segments. */
  readonly maxTokens: number;
  /** Most segments of a step. */
  readonly maxSegments: number;
  /** Called with a line that the user should see, such as that kernels are being compiled. */
  readonly onNotice?: (message: string) => void;
}

/** Opens a model for training. @throws BackendError where it cannot run here, or memory is not enough */
export type OpenTraining = (model: TrainableModel, options: TrainingOptions) => Promise<TrainingRuntime>;

/** Rows of the tokens that have a target, and the targets. */
export function selectTargets(segments: readonly TrainingSegment[]): { selected: number[]; targets: number[] } {
  const selected: number[] = [];
  const targets: number[] = [];
  let row = 0;
  for (const segment of segments) {
    for (let i = 0; i < segment.tokens.length; i++, row++) {
      const target = segment.targets[i] as number;
      if (target < 0) continue;
      selected.push(row);
      targets.push(target);
    }
  }
  return { selected, targets };
}

/** The factors by which AdamW makes up for moments that began at 0: 1 - beta^step. */
export function biasCorrections({ beta1, beta2, step }: OptimizerSettings): [number, number] {
  return [1 - beta1 ** step, 1 - beta2 ** step];
}
