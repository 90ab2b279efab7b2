// Sampling: cuts by their definition, temperature, penalties, bans, the generator.

import fc from "fast-check";
import { Sampler } from "rwkv";
import { expect, test } from "vitest";
import { TokenPenalties } from "#rwkv/sampling/penalties";
import { randomGenerator, xoshiro128 } from "#rwkv/sampling/random";
import { resolveSamplingOptions, type SamplingOptions } from "#rwkv/sampling/sampling-options";
import { rounds } from "./thorough.js";

/** Samples token after token, with a seed where none is given. */
const samplerFor = (options: SamplingOptions) => new Sampler({ seed: 1, ...options });

/** How often each token is chosen. */
function frequencies(logits: Float32Array, options: SamplingOptions, draws: number): number[] {
  const sampler = samplerFor(options);
  const counts = new Array<number>(logits.length).fill(0);
  for (let i = 0; i < draws; i++) counts[sampler.sample(logits)]! += 1 / draws;
  return counts;
}

/** The cuts by their definitions, with a full sort. */
function keptByDefinition(logits: Float32Array, { topP = 0.85, topK = 0, minP = 0 }: SamplingOptions): Set<number> {
  const max = Math.max(...logits);
  const weights = [...logits].map((logit) => Math.fround(Math.exp(logit - max)));
  const total = weights.reduce((a, b) => a + b);
  const order = weights.map((_, i) => i).sort((a, b) => weights[b]! - weights[a]! || a - b);
  let sum = 0;
  let cutoff = 0;
  for (const i of order) {
    sum += weights[i]!;
    if (sum > topP * total) {
      cutoff = topP >= 1 ? 0 : weights[i]!;
      break;
    }
  }
  return new Set(
    order.filter(
      (i, rank) => weights[i]! >= cutoff && weights[i]! >= minP && (topK === 0 || rank < topK) && weights[i]! > 0,
    ),
  );
}

const logitsArbitrary = fc
  .array(fc.float({ min: -20, max: 20, noNaN: true }), { minLength: 1, maxLength: 60 })
  .map((values) => Float32Array.from(values));

test("xoshiro128** gives the published sequence", () => {
  const next = xoshiro128([1, 2, 3, 4]);
  expect([next(), next(), next()]).toEqual([11520, 0, 5927040]);
});

test("the generator is uniform and repeats with its seed", () => {
  const random = randomGenerator(7);
  const values = Array.from({ length: 20_000 }, () => random.uniform());
  expect(Math.min(...values)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...values)).toBeLessThan(1);
  expect(values.reduce((a, b) => a + b) / values.length).toBeCloseTo(0.5, 2);
  const again = randomGenerator(7);
  expect(values.slice(0, 5)).toEqual(Array.from({ length: 5 }, () => again.uniform()));
  expect(randomGenerator(8).uniform()).not.toBe(values[0]);
  expect(randomGenerator(7 + 2 ** 32).uniform()).not.toBe(values[0]);
  // Written down once: seeds must give the same text in every version.
  expect(values.slice(0, 3)).toMatchInlineSnapshot(`
    [
      0.049009592574554284,
      0.9298532154569821,
      0.3972365680289133,
    ]
  `);
});

test("only tokens that the cuts keep are chosen, and all of them can be", () => {
  const options = fc.record({
    topP: fc.oneof(fc.constantFrom(0, 0.5, 0.85, 1), fc.double({ min: 0, max: 1, noNaN: true })),
    topK: fc.oneof(fc.constant(0), fc.nat(70)),
    minP: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 1, noNaN: true })),
  });
  fc.assert(
    fc.property(logitsArbitrary, options, fc.nat(), (logits, cuts, seed) => {
      const kept = keptByDefinition(logits, cuts);
      // A very high temperature makes all kept tokens about equally likely.
      const sampler = samplerFor({ ...cuts, temperature: 100, seed });
      const seen = new Set<number>();
      for (let i = 0; i < 10 * kept.size; i++) seen.add(sampler.sample(logits));
      expect([...seen].filter((token) => !kept.has(token))).toEqual([]);
      expect(seen.size).toBeGreaterThan(kept.size * 0.8);
    }),
    { numRuns: rounds(60) },
  );
});

test("tokens are chosen by their probabilities", () => {
  const logits = Float32Array.from([0.1, 0.2, 0.3, 0.4].map(Math.log));
  frequencies(logits, { topP: 1 }, 5_000).forEach((f, i) => expect(f).toBeCloseTo((i + 1) / 10, 1));
  const [a, b, c, d] = frequencies(logits, { topP: 0.6 }, 5_000) as [number, number, number, number];
  expect([a, b]).toEqual([0, 0]);
  expect(c / d).toBeCloseTo(3 / 4, 1);
});

test("temperature is a power of what the cuts left", () => {
  const logits = Float32Array.from([0.2, 0.2, 0.6].map(Math.log));
  const f = frequencies(logits, { topP: 1, temperature: 0.5 }, 5_000);
  expect(f[2]).toBeCloseTo(0.36 / (0.36 + 0.04 + 0.04), 1);
  // The cut is made at temperature 1: token 2 alone exceeds 0.5 there, whatever the temperature.
  expect(frequencies(logits, { topP: 0.5, temperature: 50 }, 100)).toEqual([0, 0, expect.closeTo(1)]);
});

test("top-p of 1 keeps every token; ties with the last kept token are kept", () => {
  const flat = new Float32Array(50);
  expect(frequencies(flat, { topP: 1 }, 5000).filter((f) => f > 0).length).toBe(50);
  expect(frequencies(flat, { topP: 0.1 }, 5000).filter((f) => f > 0).length).toBe(50);
  expect(frequencies(flat, { topP: 1, topK: 3 }, 500).filter((f) => f > 0).length).toBe(3);
});

test("temperature 0 is greedy, the first of equals", () => {
  const sampler = samplerFor({ temperature: 0 });
  expect(sampler.sample(Float32Array.from([1, 5, 5, 2]))).toBe(1);
});

test("bias and bans", () => {
  const logits = Float32Array.from([0, 10, 0]);
  expect(samplerFor({ temperature: 0, bannedTokens: [1] }).sample(logits)).toBe(0);
  expect(samplerFor({ temperature: 0, logitBias: { 2: 20 } }).sample(logits)).toBe(2);
  expect(frequencies(logits, { topP: 1, bannedTokens: [0, 1] }, 100)).toEqual([0, 0, expect.closeTo(1)]);
  expect([...logits]).toEqual([0, 10, 0]);
});

test("penalties: ChatRWKV's counts, decaying by 0.996 a step", () => {
  const fixed = new Map([
    [2, 10],
    [3, 1],
  ]);
  const penalties = new TokenPenalties({ presencePenalty: 0.5, frequencyPenalty: 2, penaltyDecay: 0.996 }, fixed);
  expect(penalties.adjustments()).toEqual({ tokens: [2, 3], amounts: [10, 1] });
  for (const token of [1, 1, 2]) penalties.count(token);
  const countOf1 = (0.996 + 1) * 0.996;
  expect(penalties.adjustments()).toEqual({
    tokens: [1, 2, 3],
    amounts: [expect.closeTo(-0.5 - countOf1 * 2, 5), expect.closeTo(10 - 0.5 - 2, 5), 1],
  });
  const sampler = samplerFor({ temperature: 0, presencePenalty: 1.5 });
  const choices = Array.from({ length: 4 }, () => sampler.sample(Float32Array.from([3, 2, 1])));
  expect(choices).toEqual([0, 1, 0, 0]);
});

test("a large vocabulary with a long tail is cut right", () => {
  const random = randomGenerator(3);
  const logits = Float32Array.from({ length: 50_277 }, () => random.uniform() * 4);
  for (const options of [{ topP: 0.85 }, { topP: 0.999 }, { topP: 1, topK: 1000 }, { topP: 1, minP: 0.5 }]) {
    const kept = keptByDefinition(logits, options);
    const sampler = samplerFor(options);
    for (let i = 0; i < 20; i++) expect(kept.has(sampler.sample(logits))).toBe(true);
  }
});

test("top-k above the number of tokens that are left cuts nothing", () => {
  const random = randomGenerator(4);
  const left = [3, 500, 9_000, 9_001, 65_535];
  const banned = Float32Array.from({ length: 65_536 }, () => Number.NEGATIVE_INFINITY);
  const unlikely = Float32Array.from({ length: 65_536 }, () => random.uniform() - 100); // too little for a float
  for (const logits of [banned, unlikely]) {
    for (const id of left) logits[id] = random.uniform();
    const drawn = [40, 0].map((topK) => {
      const sampler = samplerFor({ topP: 1, topK, seed: 5 });
      return Array.from({ length: 60 }, () => sampler.sample(logits));
    });
    expect(drawn[0]).toEqual(drawn[1]);
    expect(new Set(drawn[0])).toEqual(new Set(left));
  }
  // With a cut that is one, ties at its end are kept in the order of ids.
  const sampler = samplerFor({ topP: 1, topK: 3 });
  const even = banned.map((logit) => (logit === Number.NEGATIVE_INFINITY ? logit : 0));
  expect(new Set(Array.from({ length: 60 }, () => sampler.sample(even)))).toEqual(new Set(left.slice(0, 3)));
});

test("logits that are not numbers are an error, not a token", () => {
  const sampler = samplerFor({});
  expect(() => sampler.sample(Float32Array.from([Number.NaN, 1]))).toThrow("the logit of token 0 is NaN");
  expect(() => sampler.sample(Float32Array.from([1, Number.POSITIVE_INFINITY]))).toThrow("Infinity");
  expect(() => sampler.sample(Float32Array.from([-Infinity, -Infinity]))).toThrow("every logit is -Infinity");
});

test.each([
  [{ temperature: -1 }, "option temperature: expected a number from 0 to 100, found -1"],
  [{ temperature: Number.NaN }, "option temperature"],
  [{ topP: 1.1 }, "option topP: expected a number from 0 to 1, found 1.1"],
  [{ topK: 1.5 }, "option topK: expected a whole number >= 0, found 1.5"],
  [{ minP: -0.1 }, "option minP"],
  [
    { presencePenalty: "1" as unknown as number },
    'option presencePenalty: expected a number from -100 to 100, found "1"',
  ],
  [{ penaltyDecay: 2 }, "option penaltyDecay"],
  [{ seed: -1 }, "option seed: expected a whole number from 0 to 2^53 - 1, found -1"],
  [{ bannedTokens: [5] }, "option bannedTokens: expected token ids from 0 to 4, found 5"],
  [{ bannedTokens: [0, 1, 2, 3, 4] }, "fewer tokens than the whole vocabulary"],
  [{ logitBias: { 9: 1 } }, "option logitBias"],
  [{ logitBias: { 1: Number.NaN } }, "option logitBias: expected finite numbers"],
] as const)("%o is refused", (options, message) => {
  expect(() => resolveSamplingOptions(options, 5)).toThrow(message);
});
