// Ids that stand for nothing in a tokenizer are never sampled, whichever way tokens are asked for.

import { load, type Model, Sampler, type Tokenizer } from "rwkv";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { byteTokenizer } from "#rwkv/tokenizers/bytes";
import { worldTokenizer } from "#rwkv/tokenizers/world";
import { loadable } from "./environment.js";
import { fixture } from "./fixture-files.js";

const vocabulary = 33;
/** Of the 33 ids of the model, those below 20 stand for a byte, but for three gaps. */
const tokenizer: Tokenizer = { ...byteTokenizer(), vocabularySize: 20, unusedIds: [2, 3, 7] };
const unused = [2, 3, 7, ...Array.from({ length: 13 }, (_, i) => 20 + i)];
/** So that about half of what this model samples freely stands for nothing. */
const wide = { temperature: 3, topP: 1, maxTokens: 40 };

describe.each(loadable)("$backend, $threads threads", ({ backend, threads }) => {
  let model: Model;
  beforeAll(async () => {
    model = await load(fixture("odd.pth"), { tokenizer, backend, threads });
  });
  afterAll(() => model.dispose());

  test("generations, together and alone, and sessions leave them out", async () => {
    expect(model.unusedTokens).toEqual(unused);
    const session = model.session();
    await session.read([1, 2, 3]);
    const results = await Promise.all([
      ...[1, 2, 3].map((seed) => model.generate([5], { ...wide, seed }).result),
      session.generate({ ...wide, seed: 4 }).result,
      model.generate([5], { ...wide, seed: 5, constrain: { changeLogits() {} } }).result,
      model.generate([5], { ...wide, seed: 6, constrain: { allowedTokens: () => undefined } }).result,
      ...[0, 1].map((id) => model.generate([id], { ...wide, temperature: 0 }).result),
    ]);
    const sampled = new Set(results.flatMap(({ tokens }) => tokens));
    expect(sampled.size).toBeGreaterThan(10);
    expect(unused.filter((id) => sampled.has(id))).toEqual([]);
  });

  test("even where nothing else is as probable, or a constraint allows them", async () => {
    const logitBias = Object.fromEntries(unused.map((id) => [id, 1000]));
    const biased = await model.generate([5], { ...wide, seed: 1, logitBias }).result;
    expect(biased.tokens.filter((id) => unused.includes(id))).toEqual([]);
    const allowing = (tokens: readonly number[]) => {
      const mask = new Uint32Array(2);
      for (const token of tokens) mask[token >>> 5]! |= 1 << (token & 31);
      return { allowedTokens: () => mask };
    };
    const some = await model.generate([5], { ...wide, seed: 1, constrain: allowing([...unused, 9]) }).result;
    expect(new Set(some.tokens)).toEqual(new Set([9]));
    await expect(model.generate([5], { ...wide, constrain: allowing([30, 31]) }).text()).rejects.toThrow(/allow/);
  });

  test("but one that is named as a stop token may end a text", async () => {
    const logitBias = { 25: 1000 };
    const { stop } = await model.generate([5], { ...wide, logitBias, stopTokens: [25] }).result;
    expect(stop).toBe(25);
  });
});

test("a mask leaves out many of them, as banning them does", async () => {
  const free = await load();
  const { tokenizer, info } = free;
  const sparse = Array.from({ length: info.vocabulary }, (_, id) => id).filter((id) => id % 3 === 0 && id > 0);
  const model = await load(undefined, { tokenizer: { ...tokenizer, unusedIds: sparse } });
  const options = { seed: 7, maxTokens: 60, temperature: 1.5, topP: 1 };
  const { tokens } = await model.generate("Once upon a time", options).result;
  expect(tokens.some((id) => sparse.includes(id))).toBe(false);
  const banned = await free.generate("Once upon a time", { ...options, bannedTokens: sparse }).result;
  expect(tokens).toEqual(banned.tokens);
  const mask = new Uint32Array(Math.ceil(info.vocabulary / 32)).fill(0xffffffff);
  const masked = model.generate("Once upon a time", { ...options, constrain: { allowedTokens: () => mask } });
  expect((await masked.result).tokens).toEqual(tokens);
  await Promise.all([free.dispose(), model.dispose()]);
});

test("a World vocabulary tells its gaps; the end of a text is none", () => {
  const world = worldTokenizer("vocabulary.txt", `1 'a' 1\n2 'b' 1\n5 'c' 1\n`);
  expect(world.unusedIds).toEqual([3, 4]);
  expect(world.endOfText).toBe(0);
});

test("a sampler of one's own is given them", async () => {
  const model = await load(fixture("odd.pth"), { tokenizer });
  const sampler = new Sampler({ temperature: 3, topP: 1, seed: 1, bannedTokens: model.unusedTokens });
  const state = model.createState();
  const [logits] = await model.forward([{ state, tokens: [5] }]);
  const sampled = Array.from({ length: 100 }, () => sampler.sample(logits!));
  expect(sampled.filter((id) => unused.includes(id))).toEqual([]);
  expect(sampled.every((id) => id < vocabulary)).toBe(true);
  await model.dispose();
});
