// Is training serial? Runs the same RWKV over the same batch, token by token as in generation and all tokens at once as in
// training, and compares times, losses and gradients.

import type { TrainableModel, TrainingRuntime, TrainingSegment } from "../backends/training.js";
import { median } from "../bench/median.js";
import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { readFloat32 } from "../checkpoints/read-tensor.js";
import { type Graph, inputsOf, type Operation } from "../graph/graph.js";
import { add } from "../graph/operations/elementwise.js";
import { wkv } from "../graph/operations/wkv.js";
import { wkv6 } from "../graph/operations/wkv6.js";
import { wkv7 } from "../graph/operations/wkv7.js";
import { rewriteGraph } from "../graph/rewrite.js";
import { normal } from "../models/initial-values.js";
import { type RandomGenerator, randomGenerator } from "../sampling/random.js";
import { storedTensor } from "../training/initialize.js";
import { openTrainingOn } from "../training/open-training.js";
import type { ArchitectureSize } from "./architectures/architecture.js";
import type { RwkvArchitecture } from "./architectures/rwkv.js";
import { firstWeights } from "./first-weights.js";
import { checkedModel } from "./learning-model.js";

export interface ParallelSetup {
  readonly architecture: RwkvArchitecture;
  readonly layers: number;
  readonly width: number;
  readonly vocabulary: number;
  /** Sequences, and tokens of each. */
  readonly batch: number;
  readonly context: number;
  readonly threads: number;
  readonly rounds: number;
  readonly onNotice: (line: string) => void;
}

export interface ParallelResult {
  readonly name: string;
  readonly title: string;
  /** Seconds of the losses of the whole batch, one token of each sequence after another. */
  readonly serial_seconds: number;
  /** Seconds of the same losses, all tokens at once. */
  readonly parallel_seconds: number;
  readonly speed_up: number;
  /** The same of one sequence alone: what a token of it can be computed beside is only the rest of it. */
  readonly one_text: { readonly serial_seconds: number; readonly parallel_seconds: number; readonly speed_up: number };
  /** Seconds of a training step: losses, gradients, the optimizer. */
  readonly step_seconds: number;
  /** Share of the step that the recurrence itself takes, forward and back. */
  readonly wkv_share_of_step: number;
  /** Largest difference between the losses of a token, in nats. */
  readonly loss_difference: number;
  /**
   * How the loss changes along random directions of all weights: by the gradient of the parallel form, and by the serial form a
   * little before and after.
   */
  readonly directions: readonly { readonly parallel: number; readonly serial: number }[];
}

/** The operations that walk along time. */
const recurrences: readonly Operation[] = [wkv, wkv6, wkv7];
const directionCount = 4;
/**
 * How far weights move along a direction: as far as the loss should change by this, in nats. More bends, RWKV-6 and 7 before 4; less is
 * lost in rounding.
 */
const lossChange = 5e-4;
const noLearning = {
  step: 1,
  learningRate: 0,
  beta1: 0.9,
  beta2: 0.99,
  epsilon: 1e-8,
  weightDecay: 0,
  maxGradientNorm: 1e30,
};

export async function compareParallel(setup: ParallelSetup): Promise<ParallelResult> {
  const { architecture, vocabulary, batch, context } = setup;
  const random = randomGenerator(1);
  const size = sizeFor(setup);
  const graph = architecture.build(size);
  // The same model with a sum in the place of the recurrence: what a step takes less is what wkv takes.
  const summed = rewriteGraph(graph, (copy) =>
    recurrences.includes(copy.call.operation) ? inputsOf(copy.call).reduce((sum, input) => add(sum, input)) : copy,
  );
  const models = [graph, summed].map((each) => checkedModel(architecture.name, each, batch * context)) as [
    TrainableModel,
    TrainableModel,
  ];
  const tensors = await randomWeights(architecture, size, graph, random);
  const runtime = await open(setup, { ...models[0], tensors });
  const without = await open(setup, { ...models[1], tensors });
  try {
    const rows = Array.from({ length: batch }, () =>
      Int32Array.from({ length: context + 1 }, () => Math.floor(random.uniform() * vocabulary)),
    );
    const whole = wholeBatch(runtime, rows);
    const wholeWithout = wholeBatch(without, rows);
    const serial = serialBatch(runtime, rows);
    const [parallelLosses, serialLosses] = [await runtime.evaluate(whole), await serial()];
    const lossDifference = parallelLosses.reduce(
      (most, loss, i) => Math.max(most, Math.abs(loss - (serialLosses[i] as number))),
      0,
    );
    await runtime.step(whole, noLearning, 1); // touches all memory
    await without.step(wholeWithout, noLearning, 1);
    const [first, firstSerial] = [wholeBatch(runtime, rows.slice(0, 1)), serialBatch(runtime, rows.slice(0, 1))];
    const [parallelSeconds, serialSeconds, stepSeconds, withoutSeconds, oneParallel, oneSerial] = (await alternate(
      setup.rounds,
      [
        () => runtime.evaluate(whole),
        serial,
        () => runtime.step(whole, noLearning, 1),
        () => without.step(wholeWithout, noLearning, 1),
        () => runtime.evaluate(first),
        firstSerial,
      ],
    )) as [number, number, number, number, number, number];
    return {
      name: architecture.name,
      title: architecture.title,
      serial_seconds: serialSeconds,
      parallel_seconds: parallelSeconds,
      speed_up: serialSeconds / parallelSeconds,
      one_text: { serial_seconds: oneSerial, parallel_seconds: oneParallel, speed_up: oneSerial / oneParallel },
      step_seconds: stepSeconds,
      wkv_share_of_step: Math.max(0, 1 - withoutSeconds / stepSeconds),
      loss_difference: lossDifference,
      directions: await compareDirections(runtime, whole, serial, random),
    };
  } finally {
    await runtime.dispose();
    await without.dispose();
  }
}

/** Heads are as wide as they can be up to the usual 64 channels. */
function sizeFor({ layers, width, vocabulary, context }: ParallelSetup): ArchitectureSize {
  let heads = Math.ceil(width / 64);
  while (width % heads !== 0) heads++;
  return { layers, width, hidden: 4 * width, vocabulary, heads, capacity: context };
}

/** Weights of a model that has begun to learn: none of its matrices is zero, so every gradient flows. */
async function randomWeights(
  architecture: RwkvArchitecture,
  size: ArchitectureSize,
  graph: Graph,
  random: RandomGenerator,
): Promise<Map<string, StoredTensor>> {
  const tensors = firstWeights(architecture, size, graph, 0.1, random);
  for (const { name, shape, op } of graph.weights) {
    if (op !== "matrix") continue;
    const values = (await readFloat32(tensors.get(name) as StoredTensor)).map(
      (value) => value + (0.5 * normal(random)) / Math.sqrt(shape[1] as number),
    );
    tensors.set(name, storedTensor(name, shape, values));
  }
  return tensors;
}

function open({ batch, context, threads, onNotice }: ParallelSetup, model: TrainableModel): Promise<TrainingRuntime> {
  return openTrainingOn(undefined, model, { threads, maxTokens: batch * context, maxSegments: batch, onNotice });
}

/** All tokens of each sequence in one segment. */
function wholeBatch(runtime: TrainingRuntime, rows: readonly Int32Array[]): TrainingSegment[] {
  const state = runtime.createState();
  return rows.map((row) => {
    return { state, nextState: runtime.createState(), tokens: row.subarray(0, -1), targets: row.subarray(1) };
  });
}

/** The losses of all sequences, a token of each at a time; in the order of the whole batch's. */
function serialBatch(runtime: TrainingRuntime, rows: readonly Int32Array[]): () => Promise<Float32Array> {
  const states = rows.map(() => [runtime.createState(), runtime.createState()] as const);
  const empty = runtime.createState();
  return async () => {
    const context = (rows[0] as Int32Array).length - 1;
    const losses = new Float32Array(rows.length * context);
    for (let t = 0; t < context; t++) {
      const segments = rows.map((row, i) => ({
        state: t === 0 ? empty : (states[i]?.[t % 2] as (typeof states)[number][0]),
        nextState: states[i]?.[(t + 1) % 2] as (typeof states)[number][0],
        tokens: row.subarray(t, t + 1),
        targets: row.subarray(t + 1, t + 2),
      }));
      (await runtime.evaluate(segments)).forEach((loss, i) => {
        losses[i * context + t] = loss;
      });
    }
    return losses;
  };
}

async function compareDirections(
  runtime: TrainingRuntime,
  whole: readonly TrainingSegment[],
  serial: () => Promise<Float32Array>,
  random: RandomGenerator,
): Promise<{ parallel: number; serial: number }[]> {
  await runtime.step(whole, noLearning, 1);
  const gradients = runtime.parameters.map(({ gradient }) => gradient.slice());
  const values = runtime.parameters.map((parameter) => parameter.values.slice());
  const results: { parallel: number; serial: number }[] = [];
  for (let n = 0; n < directionCount; n++) {
    // Each weight moves with its gradient's sign, or not at all: so that all changes of the loss add up.
    const direction = gradients.map((gradient) => gradient.map((g) => (random.uniform() < 0.5 ? Math.sign(g) : 0)));
    const lossAt = async (amount: number) => {
      runtime.parameters.forEach((parameter, p) => {
        const moved = direction[p] as Float32Array;
        parameter.values.set((values[p] as Float32Array).map((value, i) => value + amount * (moved[i] as number)));
      });
      const losses = await serial();
      return losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
    };
    let parallel = 0;
    gradients.forEach((gradient, p) => {
      gradient.forEach((g, i) => {
        parallel += g * (direction[p]?.[i] as number);
      });
    });
    const amount = lossChange / parallel;
    const [above, below] = [await lossAt(amount), await lossAt(-amount)];
    results.push({ parallel, serial: (above - below) / (2 * amount) });
  }
  runtime.parameters.forEach((parameter, p) => void parameter.values.set(values[p] as Float32Array));
  return results;
}

/** Median seconds of each, taken in turn. */
async function alternate(rounds: number, tasks: readonly (() => Promise<unknown>)[]): Promise<number[]> {
  const samples = tasks.map((): number[] => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, task] of tasks.entries()) {
      const started = performance.now();
      await task();
      samples[i]?.push((performance.now() - started) / 1000);
    }
  }
  return samples.map(median);
}
