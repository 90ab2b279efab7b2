// Architectures trained side by side: the same embedding, head, tokens, optimizer and seed, and as many weights, within 3 %; how
// well each predicts held-out text after so many tokens, and after so much time.

import type { TrainingSegment } from "../backends/training.js";
import { elementCount } from "../dtypes.js";
import type { Graph } from "../graph/graph.js";
import { randomGenerator } from "../sampling/random.js";
import { shuffledBatches } from "../training/batches.js";
import { type Dataset, datasetOf, type HeldOutText, targetCount, trainTokenizer } from "../training/dataset.js";
import type { SplitDocuments } from "../training/document.js";
import { bitsPerByte } from "../training/evaluation.js";
import { openTrainingOn } from "../training/open-training.js";
import { learningRateAt } from "../training/schedule.js";
import type { Architecture, ArchitectureSize } from "./architectures/architecture.js";
import { rwkv4 } from "./architectures/rwkv4.js";
import { firstWeights } from "./first-weights.js";
import { checkedModel } from "./learning-model.js";

export interface CompareSetup {
  readonly architectures: readonly Architecture[];
  readonly documents: SplitDocuments;
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly vocabulary: number;
  readonly context: number;
  readonly batch: number;
  readonly steps: number;
  /** Measurements on the way. */
  readonly measurements: number;
  readonly threads: number;
  readonly seed: number;
  readonly onNotice: (line: string) => void;
  readonly onStep?: (architecture: string, step: number, steps: number) => void;
}

export interface ComparePoint {
  readonly tokens: number;
  /** The seconds of training alone, without measurements. */
  readonly seconds: number;
  /** Bits per byte of the held-out text. */
  readonly bits_per_byte: number;
}

export interface CompareResult {
  readonly name: string;
  readonly title: string;
  readonly paper: string;
  readonly parameters: number;
  readonly hidden: number;
  readonly tokens_per_second: number;
  readonly points: readonly ComparePoint[];
}

/** About how many tokens of held-out text each measurement takes at most. */
const heldOutTokens = 32_768;
const learningRate = 3e-3;
/** RWKV-LM's L2Wrap, for all. */
const logitPenalty = 1e-4;
const optimizer = { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.01, maxGradientNorm: 1 };

/** @throws TrainingError, before anything is trained, when there is too little text, or not enough memory */
export async function compareArchitectures(setup: CompareSetup): Promise<CompareResult[]> {
  const tokenizer = await trainTokenizer(setup.documents.training, setup.vocabulary);
  const data = await datasetOf(setup.documents, tokenizer, setup.context);
  const { layers, width, heads, context } = setup;
  const common = { layers, width, heads, capacity: context, vocabulary: tokenizer.tokenizer.vocabularySize };
  const budget = weightsOf(rwkv4.build({ ...common, hidden: 4 * width }));
  const sized = setup.architectures.map((architecture) => {
    return { architecture, size: { ...common, hidden: hiddenFor(architecture, common, budget) } };
  });
  // All are known to fit before the first is trained.
  for (const { architecture, size } of sized) modelOf(setup, architecture, size);
  const results: CompareResult[] = [];
  for (const { architecture, size } of sized) results.push(await trainOne(setup, architecture, size, data));
  return results;
}

function modelOf({ batch, context }: CompareSetup, architecture: Architecture, size: ArchitectureSize) {
  const { version } = architecture;
  const learning = version ? { learning: version.definition.training.learning } : {};
  return checkedModel(architecture.name, architecture.build(size), batch * context, { logitPenalty, ...learning });
}

async function trainOne(
  setup: CompareSetup,
  architecture: Architecture,
  size: ArchitectureSize,
  data: Dataset,
): Promise<CompareResult> {
  const { batch, context, steps, measurements, threads, seed, onNotice } = setup;
  const model = modelOf(setup, architecture, size);
  const { graph } = model;
  const random = randomGenerator(seed);
  const tensors = firstWeights(architecture, size, graph, learningRate, random);
  const limits = { threads, maxTokens: batch * context, maxSegments: batch, onNotice };
  const runtime = await openTrainingOn(undefined, { ...model, tensors }, limits);
  try {
    const batches = shuffledBatches(data, batch, context, seed);
    const empty = runtime.createState();
    const after = Array.from({ length: batch }, () => runtime.createState());
    const schedule = { steps, warmup: Math.ceil(steps / 50), learningRate, finalLearningRate: learningRate / 10 };
    const points: ComparePoint[] = [];
    // Each piece from the empty state: some architectures take no more than the context.
    const texts = thinned(
      data.heldOut.flatMap((text) => piecesOf(text, context)),
      Math.ceil(heldOutTokens / context),
    );
    let seconds = 0;
    for (let step = 0; step < steps; step++) {
      setup.onStep?.(architecture.name, step, steps);
      const segments = batches.at(step).map(({ tokens, targets }, i): TrainingSegment => {
        return { state: empty, nextState: after[i] as typeof empty, tokens, targets };
      });
      const rate = learningRateAt(step, { ...schedule, decay: "cosine" });
      const started = performance.now();
      await runtime.step(segments, { ...optimizer, step: step + 1, learningRate: rate }, step);
      seconds += (performance.now() - started) / 1000;
      if (Math.floor(((step + 1) * measurements) / steps) === Math.floor((step * measurements) / steps)) continue;
      const begin = (state: typeof empty) => void state.values.set(empty.values);
      const bits = (await bitsPerByte(runtime, texts, { batch, context, limit: context, begin })) as number;
      points.push({ tokens: (step + 1) * batch * context, seconds, bits_per_byte: bits });
    }
    const { name, title, paper } = architecture;
    return {
      name,
      title,
      paper,
      parameters: weightsOf(graph),
      hidden: size.hidden,
      tokens_per_second: (steps * batch * context) / seconds,
      points,
    };
  } finally {
    await runtime.dispose();
  }
}

/** Pieces of `length` tokens and what follows; bytes in proportion. */
function piecesOf(text: HeldOutText, length: number): HeldOutText[] {
  const { tokens, learned, bytes } = text;
  const pieces: HeldOutText[] = [];
  for (let at = 0; at + 1 < tokens.length; at += length) {
    const piece = {
      tokens: tokens.subarray(at, at + length + 1),
      ...(learned && { learned: learned.subarray(at, at + length + 1) }),
    };
    const count = targetCount(piece);
    if (count > 0) pieces.push({ ...piece, bytes: (bytes * count) / targetCount(text) });
  }
  return pieces;
}

/** Evenly from the whole list, at most so many. */
function thinned<Item>(items: readonly Item[], most: number): Item[] {
  const step = Math.ceil(items.length / most);
  return items.filter((_, i) => i % step === 0);
}

function weightsOf(graph: Graph): number {
  return graph.weights.reduce((sum, { shape }) => sum + elementCount(shape), 0);
}

/** The hidden width that brings an architecture to the budget; the number of weights grows with it along a line. */
function hiddenFor(architecture: Architecture, size: Omit<ArchitectureSize, "hidden">, budget: number): number {
  const at = (hidden: number) => weightsOf(architecture.build({ ...size, hidden }));
  const [one, two] = [at(1), at(2)];
  return Math.max(1, Math.round(1 + (budget - one) / (two - one)));
}
