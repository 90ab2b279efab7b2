// How fast the loaded model is: rounds in which each speed is measured in turn, so that what slows the machine for a while touches all.

import type { BenchResult, Distribution, Progress } from "../protocol.js";
import type { Context } from "./worker.js";

const rounds = 5;
const promptLength = 512;
/** Tokens of each round, one at a time. */
const decodedTokens = 60;
const generatedTokens = 40;

export async function bench(_: null, { loaded, signal, send }: Context<Progress>): Promise<BenchResult> {
  const { model } = loaded;
  const { vocabulary } = model.info;
  const token = (i: number) => (i * 7919 + 13) % vocabulary;
  const prompt = Array.from({ length: promptLength }, (_, i) => token(i));
  const output = new Float32Array(vocabulary);
  const milliseconds: number[] = [];
  const promptSpeeds: number[] = [];
  const generateSpeeds: number[] = [];
  const state = model.createState();
  try {
    await model.forward([{ state, tokens: [token(0)], output }]); // compiled before anything is measured
    const total = rounds * 3;
    for (let round = 0; round < rounds; round++) {
      for (let i = 0; i < decodedTokens; i++) {
        const started = performance.now();
        await model.forward([{ state, tokens: [token(i)], output }]);
        milliseconds.push(performance.now() - started);
      }
      signal.throwIfAborted();
      send({ done: round * 3 + 1, total });
      const fresh = model.createState();
      const started = performance.now();
      await model.forward([{ state: fresh, tokens: prompt, output }]);
      promptSpeeds.push((promptLength * 1000) / (performance.now() - started));
      await fresh.dispose();
      signal.throwIfAborted();
      send({ done: round * 3 + 2, total });
      const generation = model.generate([token(1)], {
        maxTokens: generatedTokens,
        stopTokens: [],
        seed: round,
        signal,
      });
      generateSpeeds.push((await generation.result).decodeTokensPerSecond);
      signal.throwIfAborted();
      send({ done: round * 3 + 3, total });
    }
  } finally {
    await state.dispose();
  }
  const decode: Distribution = {
    p50: percentile(milliseconds, 0.5),
    p90: percentile(milliseconds, 0.9),
    p99: percentile(milliseconds, 0.99),
  };
  return {
    decode,
    decodeTokensPerSecond: 1000 / decode.p50,
    promptTokens: promptLength,
    promptTokensPerSecond: percentile(promptSpeeds, 0.5),
    promptTokensPerSecondP90: percentile(promptSpeeds, 0.1),
    generateTokensPerSecond: percentile(generateSpeeds, 0.5),
  };
}

/** The least of the values that at least `share` of them do not exceed. */
function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] as number;
}
