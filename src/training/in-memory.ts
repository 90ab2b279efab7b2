// Trains a new small model on a text in memory, for a given time, and leaves it in memory: nothing is read from a disk or written to one, so
// it runs in pages. Computes in WebAssembly. Runs in folders, with data of any size, are train.ts's.

import { defaultThreads } from "#platform/backends";
import { canShareMemory } from "#platform/compute-workers";
import { readTrainingKernels } from "#platform/training-kernels";
import { openKernelTraining } from "../backends/kernel/kernel-training.js";
import type { TrainingRuntime, TrainingSegment } from "../backends/training.js";
import { createWasmMachine } from "../backends/wasm/wasm.js";
import { pthBytes } from "../checkpoints/write-pth.js";
import { elementCount } from "../dtypes.js";
import { BackendError, OptionError, TrainingError } from "../errors.js";
import { newModels } from "../models/definitions.js";
import { newLayout } from "../models/tensor-layout.js";
import { writtenTensors } from "../models/written-tensors.js";
import { randomGenerator } from "../sampling/random.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { shuffledBatches } from "./batches.js";
import { type Dataset, datasetOf, trainTokenizer } from "./dataset.js";
import { documentOf, holdOut } from "./document.js";
import { bitsPerByte } from "./evaluation.js";
import { firstTensors } from "./initialize.js";
import { learningRateAt } from "./schedule.js";
import { trainableModel } from "./trainable-model.js";

/** Options of `trainInMemory`. */
export interface InMemoryOptions {
  /** How long it trains; the learning rate falls with the time. From 1 to 86,400, default 60. */
  readonly seconds?: number;
  /** Default 2. */
  readonly layers?: number;
  /** Width of the residual stream, a multiple of 64. Default 128. */
  readonly width?: number;
  /** Tokens of the tokenizer that is trained on the text, from 257 to 65,536. Default 512. */
  readonly vocabulary?: number;
  /** Tokens of a sequence. Default 64. */
  readonly context?: number;
  /** Sequences of a step. Default 8. */
  readonly batch?: number;
  /** Highest learning rate; the last is a tenth of it. Default 3e-3. */
  readonly learningRate?: number;
  readonly seed?: number;
  /** By default one for each core; one in a page that is not isolated. */
  readonly threads?: number;
  /** Ends the training after the step in progress; the model is what it is by then. */
  readonly signal?: AbortSignal;
  /** Called after each step. */
  readonly onStep?: (progress: InMemoryProgress) => void;
}

/** The progress of a training in memory, after a step. */
export interface InMemoryProgress {
  readonly step: number;
  /** Share of the time that is over, from 0 to 1. */
  readonly progress: number;
  /** The mean loss of the step's tokens, in nats per token. */
  readonly loss: number;
  readonly bitsPerByte: number;
  readonly tokensPerSecond: number;
  /** Bits per byte of the text that is held out; present at some steps. */
  readonly validationBitsPerByte?: number;
}

/** A model that was trained in memory. */
export interface TrainedInMemory {
  /** The model as a .pth file, in float32. */
  readonly pth: Uint8Array<ArrayBuffer>;
  /** Its tokenizer.json. */
  readonly tokenizerJson: string;
  readonly tokenizer: Tokenizer;
  readonly parameters: number;
  readonly steps: number;
  /** Bits per byte of the text that was held out, the last tenth. */
  readonly validationBitsPerByte: number;
}

const heldOutShare = 0.1;
/** How often the held-out text is measured, as a share of the time, and how many tokens of it. */
const measureEvery = 0.1;
const measuredTokens = 512;
const optimizer = { beta1: 0.9, beta2: 0.99, weightDecay: 0.01, maxGradientNorm: 1 };
const logitPenalty = 1e-4;

/**
 * Trains a new model of the newest RWKV version on a text.
 *
 * @param text what it learns; a tenth of it, its end, is held out to measure with
 * @throws TrainingError where there is too little text, or the loss is no longer a number; OptionError; BackendError
 */
export async function trainInMemory(text: string, options: InMemoryOptions = {}): Promise<TrainedInMemory> {
  const given = checked(text, options);
  const { layers, width, context, batch, learningRate, seed, threads, signal, onStep } = given;
  const documents = holdOut([documentOf("the text", text)], heldOutShare);
  const tokenizer = await trainTokenizer(documents.training, given.vocabulary);
  const data = await datasetOf(documents, tokenizer, context);
  const definition = newModels;
  const size = definition.newSize({ layers, width, vocabulary: tokenizer.tokenizer.vocabularySize });
  const graph = definition.build(size, { layerNormEpsilon: 1e-5 });
  const { learning, adamEpsilon } = definition.training;
  const model = trainableModel(graph, new Map(), { weights: graph.weights, learning, logitPenalty });
  const random = randomGenerator(seed);
  const tensors = firstTensors(definition, graph, { size, embeddingRange: learningRate, random });
  const runtime = await openTraining({ ...model, tensors }, threads, batch, context);
  try {
    const batches = shuffledBatches(data, batch, context, seed);
    const empty = runtime.createState();
    const after = Array.from({ length: batch }, () => runtime.createState());
    const started = performance.now();
    const timeShare = () => Math.min(1, (performance.now() - started) / 1000 / given.seconds);
    let measuredAt = 0;
    let step = 0;
    while (timeShare() < 1 && !signal?.aborted) {
      const windows = batches.at(step);
      const segments = windows.map(({ tokens, targets }, i): TrainingSegment => {
        return { state: empty, nextState: after[i] as typeof empty, tokens, targets };
      });
      const begun = performance.now();
      const rate = rateAt(timeShare(), step, learningRate);
      const settings = { ...optimizer, epsilon: adamEpsilon, step: step + 1, learningRate: rate };
      const { losses } = await runtime.step(segments, settings, step);
      step++;
      const loss = losses.reduce((sum, one) => sum + one, 0) / losses.length;
      if (!Number.isFinite(loss)) {
        throw new TrainingError(`the loss is no longer a number after ${step} steps: lower the learning rate`);
      }
      const progress = timeShare();
      const isMeasured = progress - measuredAt >= measureEvery;
      if (isMeasured) measuredAt = progress;
      onStep?.({
        step,
        progress,
        loss,
        bitsPerByte: loss / Math.LN2 / data.bytesPerToken,
        tokensPerSecond: (windows.length * context * 1000) / (performance.now() - begun),
        ...(isMeasured && {
          validationBitsPerByte: await measured(runtime, data, empty.values, batch, context, measuredTokens),
        }),
      });
    }
    const parameters = new Map(runtime.parameters.map((parameter) => [parameter.name, parameter.values]));
    const layout = newLayout(definition, graph, size);
    const written = writtenTensors({ layout, dtype: "f32", valuesOf: ({ name }) => parameters.get(name) });
    return {
      pth: await pthBytes(written),
      tokenizerJson: tokenizer.file?.content as string,
      tokenizer: tokenizer.tokenizer,
      parameters: graph.weights.reduce((sum, { shape }) => sum + elementCount(shape), 0),
      steps: step,
      validationBitsPerByte: await measured(
        runtime,
        data,
        empty.values,
        batch,
        context,
        signal?.aborted ? measuredTokens : Number.POSITIVE_INFINITY,
      ),
    };
  } finally {
    await runtime.dispose();
  }
}

/** Threads where they can be had; one where a page may start no workers. */
async function openTraining(
  model: Parameters<typeof openKernelTraining>[1],
  threads: number,
  batch: number,
  context: number,
): Promise<TrainingRuntime> {
  const options = { threads, maxTokens: batch * context, maxSegments: batch };
  const on = async (shared: boolean) =>
    openKernelTraining(await createWasmMachine(threads, shared, "training", readTrainingKernels), model, options);
  if (!canShareMemory) return on(false);
  try {
    return await on(true);
  } catch (error) {
    if (!(error instanceof BackendError)) throw error;
    return on(false);
  }
}

/** Warm-up over the first twenty steps, then down by a cosine over the time. */
function rateAt(progress: number, step: number, learningRate: number): number {
  const steps = 1e6;
  const schedule = { steps, warmup: 0, learningRate, finalLearningRate: learningRate / 10, decay: "cosine" } as const;
  return learningRateAt(Math.floor(progress * steps), schedule) * Math.min(1, (step + 1) / 20);
}

async function measured(
  runtime: TrainingRuntime,
  { heldOut }: Dataset,
  empty: Float32Array,
  batch: number,
  context: number,
  limit: number,
): Promise<number> {
  const first = empty.slice();
  const begin = (state: { readonly values: Float32Array }) => void state.values.set(first);
  return (await bitsPerByte(runtime, heldOut, { batch, context, limit, begin })) as number;
}

/** All options with their values. @throws OptionError, TrainingError */
function checked(text: string, options: InMemoryOptions) {
  if (typeof text !== "string") throw new OptionError("text", text, "a text to learn from");
  if (typeof options !== "object" || options === null) throw new OptionError("options", options, "an object");
  const { seconds = 60, layers = 2, width = 128, vocabulary = 512, context = 64, batch = 8 } = options;
  const { learningRate = 3e-3, seed = 1, threads = defaultThreads(), signal, onStep } = options;
  const whole = (name: string, value: number, least: number, most: number) => {
    if (Number.isSafeInteger(value) && value >= least && value <= most) return;
    throw new OptionError(name, value, `a whole number from ${least} to ${most}`);
  };
  whole("layers", layers, 1, 64);
  whole("width", width, 64, 2048);
  whole("vocabulary", vocabulary, 257, 65_536);
  whole("context", context, 2, 4096);
  whole("batch", batch, 1, 256);
  whole("seed", seed, 0, 2 ** 32 - 1);
  whole("threads", threads, 1, 256);
  if (!(seconds >= 1 && seconds <= 86_400)) throw new OptionError("seconds", seconds, "a number from 1 to 86400");
  if (!(learningRate > 0 && learningRate <= 1)) {
    throw new OptionError("learningRate", learningRate, "a number above 0 and at most 1");
  }
  return { seconds, layers, width, vocabulary, context, batch, learningRate, seed, threads, signal, onStep };
}
