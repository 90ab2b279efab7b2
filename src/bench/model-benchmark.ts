// Measures a loaded model and its machine, in rounds in which every speed is measured once, in turn, with the machine's
// bandwidth before and after; then medians. Noise that comes and goes thus touches all alike.

import { matrixUses } from "../backends/matrix-uses.js";
import { matrixTypes } from "../backends/placement.js";
import { byteLengthOf } from "../checkpoints/checkpoint.js";
import { elementCount, type WeightDType } from "../dtypes.js";
import type { Model } from "../generation/model.js";
import type { WeightNode } from "../graph/graph.js";
import type { BoundModel } from "../models/versions.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import type { MachineProbes } from "./machine-probes.js";
import { median, percentile } from "./median.js";

/** What is measured; the keys of `rwkv bench --json`. Speeds in tokens per second, of all sequences together. */
export interface Measurement {
  readonly model: string;
  readonly backend: string;
  readonly dtype: string;
  readonly threads: number;
  /** One sequence, one token at a time: forward passes only. */
  readonly decode_tok_s: number;
  /** The same with sampling, detokenizing and streaming. */
  readonly generate_tok_s: number;
  /** A prompt of 512 tokens. */
  readonly prefill_tok_s: number;
  /** Milliseconds of single tokens of decoding: half, nine tenths and 99 in a hundred took no longer. */
  readonly decode_p50_ms: number;
  readonly decode_p90_ms: number;
  readonly decode_p99_ms: number;
  /** Several sequences, a token each at a time. */
  readonly batches: readonly BatchMeasurement[];
  /** Eight sequences, a token each at a time. */
  readonly batch8_tok_s: number;
  /** Eight calls of `generate` at once. */
  readonly generate8_tok_s: number;
  readonly load_ms: number;
  /** From the start of loading to the first token's logits. */
  readonly first_token_ms: number;
  readonly rss_mb: number;
  /** Bytes of weights that a token needs: all matrices but the embedding. */
  readonly weight_bytes_per_token: number;
  /** null where the backend has no kernels (reference). */
  readonly read_gb_s: number | null;
  readonly peak_gflops: number | null;
  readonly decode_of_limit: number | null;
  readonly prefill_of_peak: number | null;
}

/** A pass of several sequences against what bounds it: reading all weights once, or as many rows at the speed of a prompt. */
export interface BatchMeasurement {
  readonly sequences: number;
  readonly tok_s: number;
  /** null where the backend has no kernels (reference). */
  readonly bound_tok_s: number | null;
  readonly of_bound: number | null;
}

const prefillTokens = 512;
const batchSizes: readonly number[] = [2, 4, 8, 16, 32];
/** Generations that run at once. */
const parallelGenerations = 8;
/** Percentiles are of at least as many tokens. */
const timedTokens = 300;
/** Each speed is taken over at least this long in every round, in milliseconds. */
const minimumTime = 400;

/**
 * @param work what `workPerToken` found of the model
 * @param started when loading began, on the clock of `performance.now()`
 */
export async function benchmarkModel(
  model: Model,
  { weightBytes, operations, headOperations }: Work,
  probes: MachineProbes | undefined,
  started: number,
  rounds: number,
): Promise<Measurement> {
  const { info } = model;
  const token = (i: number) => (i * 7919 + 13) % info.vocabulary;
  const single = model.createState();
  await model.forward([{ state: single, tokens: [token(0)] }]);
  const firstToken = performance.now() - started;

  const states = Array.from({ length: Math.max(...batchSizes) }, () => model.createState());
  const prompt = Array.from({ length: prefillTokens }, (_, i) => token(i));
  let next = 0;
  const tokenTimes: number[] = [];
  // Logits go into the same arrays each time, as in any fast loop.
  const outputs = states.map(() => new Float32Array(info.vocabulary));
  const decode = async () => {
    const before = performance.now();
    await model.forward([{ state: single, tokens: [token(next++)], output: outputs[0] as Float32Array }]);
    tokenTimes.push(performance.now() - before);
  };
  const speeds: Record<string, () => Promise<number>> = {
    decode: () => tokensPerSecond(1, decode),
    generate: () => generationSpeed(model, token(1)),
    prefill: async () => {
      const state = model.createState();
      const speed = await tokensPerSecond(prefillTokens, () => model.forward([{ state, tokens: prompt }]));
      await state.dispose();
      return speed;
    },
    generate8: () => parallelGenerationSpeed(model, token(1)),
  };
  for (const size of batchSizes) {
    const segments = () =>
      states
        .slice(0, size)
        .map((state, i) => ({ state, tokens: [token(next + i)], output: outputs[i] as Float32Array }));
    speeds[`batch${size}`] = () => tokensPerSecond(size, () => model.forward(segments()));
  }
  const samples: Record<string, number[]> = {};
  const take = (name: string, value: number) => {
    samples[name] = [...(samples[name] ?? []), value];
  };
  await speeds["decode"]?.(); // warm-up: pages, caches, compiled JavaScript
  tokenTimes.length = 0;
  for (let round = 0; round < rounds; round++) {
    for (const [name, measure] of Object.entries(speeds)) {
      if (probes && name === "decode") take("read", await probes.readBandwidth());
      take(name, await measure());
      if (probes && name === "decode") take("read", await probes.readBandwidth());
    }
    if (probes) take("arithmetic", await probes.arithmeticRate());
  }
  while (tokenTimes.length < timedTokens) await decode();
  const of = (name: string) => median(samples[name] ?? []);
  const batches = batchSizes.map((sequences): BatchMeasurement => {
    const tok_s = of(`batch${sequences}`);
    if (!probes) return { sequences, tok_s, bound_tok_s: null, of_bound: null };
    // A prompt needs no head, but each of the sequences does.
    const arithmetic = (sequences * (operations + headOperations)) / (of("prefill") * operations);
    const bound_tok_s = sequences / Math.max(weightBytes / of("read"), arithmetic);
    return { sequences, tok_s, bound_tok_s, of_bound: tok_s / bound_tok_s };
  });
  return {
    model: info.source,
    backend: info.strategy ?? info.backend,
    dtype: info.dtype,
    threads: info.threads,
    decode_tok_s: of("decode"),
    generate_tok_s: of("generate"),
    prefill_tok_s: of("prefill"),
    decode_p50_ms: percentile(tokenTimes, 0.5),
    decode_p90_ms: percentile(tokenTimes, 0.9),
    decode_p99_ms: percentile(tokenTimes, 0.99),
    batches,
    batch8_tok_s: of("batch8"),
    generate8_tok_s: of("generate8"),
    load_ms: info.loadMilliseconds,
    first_token_ms: firstToken,
    rss_mb: process.memoryUsage().rss / 1e6,
    weight_bytes_per_token: weightBytes,
    read_gb_s: probes ? of("read") / 1e9 : null,
    peak_gflops: probes ? of("arithmetic") / 1e9 : null,
    decode_of_limit: probes ? (of("decode") * weightBytes) / of("read") : null,
    prefill_of_peak: probes ? (of("prefill") * operations) / of("arithmetic") : null,
  };
}

/** What a token needs: bytes of weights read, operations of a token of a prompt (which needs no head), and those of the head. */
export interface Work {
  readonly weightBytes: number;
  readonly operations: number;
  readonly headOperations: number;
}

/** @param dtype that the model is loaded with */
export function workPerToken({ graph, tensors }: BoundModel, dtype: WeightDType | undefined): Work {
  const { products, head } = matrixUses(graph);
  const types = matrixTypes(graph, tensors, dtype);
  const bytesOf = (weight: WeightNode) =>
    byteLengthOf({ dtype: types.get(weight) as WeightDType, shape: weight.shape });
  const operationsOf = ({ shape }: WeightNode) => 2 * elementCount(shape);
  const sum = (weights: readonly WeightNode[], of: (weight: WeightNode) => number) =>
    weights.reduce((total, weight) => total + of(weight), 0);
  const heads = head ? [head] : [];
  return {
    // A row of the embedding, at most four bytes a weight, does not count.
    weightBytes: sum([...products, ...heads], bytesOf),
    operations: sum([...products], operationsOf),
    headOperations: sum(heads, operationsOf),
  };
}

async function tokensPerSecond(tokens: number, step: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  let steps = 0;
  let elapsed = 0;
  while (elapsed < minimumTime) {
    await step();
    steps++;
    elapsed = performance.now() - started;
  }
  return (steps * tokens * 1000) / elapsed;
}

async function generationSpeed(model: Model, firstToken: number): Promise<number> {
  const generation = model.generate([firstToken], { ...generationOptions, seed: 1 });
  let started = 0;
  let tokens = 0;
  for await (const _ of generation) {
    if (tokens++ === 0) started = performance.now();
    else if (performance.now() - started >= minimumTime) break;
  }
  return ((tokens - 1) * 1000) / (performance.now() - started);
}

const generationOptions = { maxTokens: 1_000_000, stopTokens: [], topP: 0.85 };

/** Tokens of all generations together, from when each has its first one. */
async function parallelGenerationSpeed(model: Model, firstToken: number): Promise<number> {
  let started = 0;
  let waiting = parallelGenerations;
  let tokens = 0;
  const run = async (seed: number) => {
    let first = true;
    for await (const _ of model.generate([firstToken], { ...generationOptions, seed })) {
      if (started > 0) tokens++;
      if (first && --waiting === 0) started = performance.now();
      first = false;
      if (started > 0 && performance.now() - started >= minimumTime) break;
    }
  };
  await Promise.all(Array.from({ length: parallelGenerations }, (_, i) => run(i + 1)));
  return (tokens * 1000) / (performance.now() - started);
}

/** A tokenizer that gives a letter for every token, so that each is seen as it streams. */
export function letterTokenizer(vocabularySize: number): Tokenizer {
  return {
    kind: "bytes",
    vocabularySize,
    encode: () => [],
    decode: (ids) => "x".repeat(ids.length),
    stream: () => ({ push: () => "x", end: () => "" }),
  };
}
