// Measures training: steps of a new model on random tokens, and between them what the machine can do.

import { matrixUses } from "../backends/matrix-uses.js";
import type { TrainingBackendName, TrainingSegment } from "../backends/training.js";
import { elementCount } from "../dtypes.js";
import { randomGenerator } from "../sampling/random.js";
import { firstTensors } from "../training/initialize.js";
import { openTrainingOn } from "../training/open-training.js";
import { trainableModel } from "../training/trainable-model.js";
import type { MachineProbes } from "./machine-probes.js";
import { median } from "./median.js";
import type { SyntheticModel } from "./synthetic-checkpoint.js";

export interface TrainingSetup {
  readonly model: SyntheticModel;
  /** Sequences of a step, and tokens of each. */
  readonly batch: number;
  readonly context: number;
  readonly backend: TrainingBackendName;
  readonly threads: number;
  readonly rounds: number;
  readonly onNotice: (line: string) => void;
}

/** What is measured; the keys of `rwkv bench --train --json`. */
export interface TrainingMeasurement {
  readonly model: string;
  readonly backend: string;
  readonly threads: number;
  readonly batch: number;
  readonly context: number;
  /** Forward, backward and the optimizer. */
  readonly train_tok_s: number;
  /** The GFLOP/s of matrix products, six operations for each weight and token. */
  readonly train_gflops: number;
  /** null where the backend has no kernels (reference). */
  readonly peak_gflops: number | null;
  readonly train_of_peak: number | null;
  /** Weights, gradients, moments and intermediate values. */
  readonly memory_mb: number;
  readonly rss_mb: number;
}

const optimizer = { beta1: 0.9, beta2: 0.99, weightDecay: 0.01, maxGradientNorm: 1 };

export async function benchmarkTraining(
  setup: TrainingSetup,
  probes: MachineProbes | undefined,
): Promise<TrainingMeasurement> {
  const { name, definition, size } = setup.model;
  const { batch, context, backend, threads, rounds, onNotice } = setup;
  const graph = definition.build(size, { layerNormEpsilon: 1e-5 });
  const { learning, adamEpsilon } = definition.training;
  const random = randomGenerator(1);
  const tensors = firstTensors(definition, graph, { size, embeddingRange: 1e-4, random });
  const model = trainableModel(graph, tensors, { weights: graph.weights, learning, logitPenalty: 1e-4 });
  const limits = { threads, maxTokens: batch * context, maxSegments: batch, onNotice };
  const runtime = await openTrainingOn(backend, model, limits);
  try {
    const initial = runtime.createState();
    const tokens = () => Int32Array.from({ length: context }, () => Math.floor(random.uniform() * size.vocabulary));
    const segments = Array.from({ length: batch }, (): TrainingSegment => {
      return { state: initial, nextState: runtime.createState(), tokens: tokens(), targets: tokens() };
    });
    const seconds: number[] = [];
    const peaks: number[] = [];
    for (let step = 0; step <= rounds; step++) {
      if (probes) peaks.push(await probes.arithmeticRate());
      const started = performance.now();
      await runtime.step(segments, { ...optimizer, epsilon: adamEpsilon, step: step + 1, learningRate: 1e-4 }, step);
      if (step > 0) seconds.push((performance.now() - started) / 1000); // the first one touches the memory
    }
    const speed = (batch * context) / median(seconds);
    const { products, head } = matrixUses(graph);
    const multiplied = [...products, ...(head ? [head] : [])];
    const operations = 6 * multiplied.reduce((sum, weight) => sum + elementCount(weight.shape), 0);
    const peak = probes ? median(peaks) : null;
    return {
      model: name,
      backend,
      threads: runtime.threads,
      batch,
      context,
      train_tok_s: speed,
      train_gflops: (speed * operations) / 1e9,
      peak_gflops: peak === null ? null : peak / 1e9,
      train_of_peak: peak === null ? null : (speed * operations) / peak,
      memory_mb: runtime.memory / 1e6,
      rss_mb: process.memoryUsage().rss / 1e6,
    };
  } finally {
    await runtime.dispose();
  }
}
