// How costs grow with the length of a text: training, reading a prompt, generating a token, and what a sequence carries along;
// for each architecture, measured on the same kernels, beside what its paper says.

import type { ResidentState } from "../backends/backend.js";
import type { TrainingRuntime } from "../backends/training.js";
import { median } from "../bench/median.js";
import { stateLayout } from "../graph/state-layout.js";
import { randomGenerator } from "../sampling/random.js";
import { openTrainingOn } from "../training/open-training.js";
import type { Architecture, ArchitectureSize, Complexity, Growth } from "./architectures/architecture.js";
import { firstWeights } from "./first-weights.js";
import { checkedModel } from "./learning-model.js";

export interface ScaleSetup {
  readonly architectures: readonly Architecture[];
  /** Numbers of tokens, ascending. */
  readonly lengths: readonly number[];
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly threads: number;
  /** At least so many measurements that a median is taken of. */
  readonly rounds: number;
  readonly onNotice: (line: string) => void;
  /** Called before each measurement. */
  readonly onProgress?: (architecture: string, length: number) => void;
}

/** One architecture at one length T. */
export interface ScalePoint {
  readonly tokens: number;
  /** Seconds of a training step of one sequence of T tokens. */
  readonly step_seconds: number;
  /** Bytes of weights, gradients, moments and values of that step. */
  readonly step_bytes: number;
  /** Seconds of reading T tokens. */
  readonly prefill_seconds: number;
  /** Seconds of the token after T. */
  readonly token_seconds: number;
  /** Bytes that the sequence carries along after T tokens. */
  readonly state_bytes: number;
}

export interface ScaleResult {
  readonly name: string;
  readonly title: string;
  readonly paper: string;
  readonly points: readonly ScalePoint[];
  /** Exponents of T, fitted for T >= 1024 where there are such points. */
  readonly measured: Growth & { readonly prefill: number; readonly memory: number };
  readonly theory: Growth;
  readonly complexity: Complexity;
}

const vocabulary = 256;
/** The number of tokens that are generated after T, the first of them as a warm-up. */
const generated = 64;
const unmeasured = 16;
/** Short texts are measured again until this much time has gone by. */
const leastMilliseconds = 300;
const noLearning = {
  step: 1,
  learningRate: 0,
  beta1: 0.9,
  beta2: 0.99,
  epsilon: 1e-8,
  weightDecay: 0,
  maxGradientNorm: 1,
};

/** @throws TrainingError, before anything is measured, when a length would take more than the machine's memory */
export async function measureScale(setup: ScaleSetup): Promise<ScaleResult[]> {
  for (const architecture of setup.architectures) {
    for (const tokens of setup.lengths) modelOf(architecture, sizeFor(setup, tokens), tokens);
  }
  const results: ScaleResult[] = [];
  for (const architecture of setup.architectures) {
    const points: ScalePoint[] = [];
    for (const tokens of setup.lengths) {
      setup.onProgress?.(architecture.name, tokens);
      points.push(await measureLength(setup, architecture, tokens));
    }
    const { name, title, paper, theory, complexity } = architecture;
    results.push({ name, title, paper, theory, complexity, points, measured: growthOf(points) });
  }
  return results;
}

function sizeFor({ layers, width, heads }: ScaleSetup, tokens: number): ArchitectureSize {
  return { layers, width, hidden: 4 * width, vocabulary, heads, capacity: tokens + generated };
}

function modelOf(architecture: Architecture, size: ArchitectureSize, tokens: number) {
  return checkedModel(`${architecture.name}, ${tokens} tokens`, architecture.build(size), tokens);
}

async function measureLength(setup: ScaleSetup, architecture: Architecture, tokens: number): Promise<ScalePoint> {
  const { threads, rounds, onNotice } = setup;
  const size = sizeFor(setup, tokens);
  const model = modelOf(architecture, size, tokens);
  const tensors = firstWeights(architecture, size, model.graph, 1, randomGenerator(1));
  const limits = { threads, maxTokens: tokens, maxSegments: 1, onNotice };
  const runtime = await openTrainingOn(undefined, { ...model, tensors }, limits);
  try {
    const random = randomGenerator(2);
    const text = Int32Array.from({ length: tokens + 1 }, () => Math.floor(random.uniform() * vocabulary));
    const [empty, after] = [runtime.createState(), runtime.createState()];
    const whole = [{ state: empty, nextState: after, tokens: text.subarray(0, tokens), targets: text.subarray(1) }];
    await runtime.step(whole, noLearning, 1); // touches all memory
    const steps: number[] = [];
    const prefills: number[] = [];
    const started = performance.now();
    for (let round = 0; round < rounds || performance.now() - started < leastMilliseconds; round++) {
      steps.push(await secondsOf(() => runtime.step(whole, noLearning, 1)));
      prefills.push(await secondsOf(() => runtime.evaluate(whole)));
    }
    return {
      tokens,
      step_seconds: median(steps),
      step_bytes: runtime.memory,
      prefill_seconds: median(prefills),
      token_seconds: await secondsOfToken(runtime, after),
      // Caches have a capacity of exactly T tokens.
      state_bytes: 4 * stateLayout(architecture.build({ ...size, capacity: tokens })).length,
    };
  } finally {
    await runtime.dispose();
  }
}

/** Times tokens that are generated from the state after T tokens, which advances in place. */
async function secondsOfToken(runtime: TrainingRuntime, state: ResidentState): Promise<number> {
  const samples: number[] = [];
  for (let i = 0; i < generated; i++) {
    const segment = { state, nextState: state, tokens: [i], targets: [0] };
    samples.push(await secondsOf(() => runtime.evaluate([segment])));
  }
  return median(samples.slice(unmeasured));
}

async function secondsOf(task: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await task();
  return (performance.now() - started) / 1000;
}

function growthOf(points: readonly ScalePoint[]): ScaleResult["measured"] {
  const long = points.filter(({ tokens }) => tokens >= 1024);
  const used = long.length >= 2 ? long : points;
  const exponent = (of: (point: ScalePoint) => number) => slope(used.map((point) => [point.tokens, of(point)]));
  return {
    training: exponent(({ step_seconds }) => step_seconds),
    prefill: exponent(({ prefill_seconds }) => prefill_seconds),
    token: exponent(({ token_seconds }) => token_seconds),
    state: exponent(({ state_bytes }) => state_bytes),
    memory: exponent(({ step_bytes }) => step_bytes),
  };
}

/** The exponent p of y = a x^p, by least squares of the logarithms; 0 for less than two points. */
export function slope(points: readonly (readonly [x: number, y: number])[]): number {
  const logs = points.map(([x, y]) => [Math.log(x), Math.log(y)] as const);
  const mean = (of: (pair: readonly [number, number]) => number) =>
    logs.reduce((sum, pair) => sum + of(pair), 0) / logs.length;
  const [x, y] = [mean((pair) => pair[0]), mean((pair) => pair[1])];
  const spread = logs.reduce((sum, pair) => sum + (pair[0] - x) ** 2, 0);
  return spread === 0 ? 0 : logs.reduce((sum, pair) => sum + (pair[0] - x) * (pair[1] - y), 0) / spread;
}
