// Models that one memory of WebAssembly does not hold, which are divided among several by themselves: what they give is, to the bit, what one
// memory gives. In Node and in pages, isolated or not.

import { BackendError, type LoadOptions, load, type Model, openCheckpoint, StateError, type WeightDType } from "rwkv";
import { expect, onTestFinished, test } from "vitest";
import { embeddedModel } from "#platform/files";
import { lastingBytes, passBytes } from "#rwkv/backends/kernel/memory-need";
import { createWasmMachine } from "#rwkv/backends/wasm/wasm";
import { uncounted } from "#rwkv/backends/wasm/wasm-memory";
import { syntheticCheckpoint } from "#rwkv/bench/synthetic-checkpoint";
import type { Checkpoint } from "#rwkv/checkpoints/checkpoint";
import { loadCheckpoint } from "#rwkv/load";
import { definitions } from "#rwkv/models/definitions";
import { bindModel } from "#rwkv/models/versions";
import { embed } from "#rwkv/server/embedding";
import { inBrowser, maxDifference } from "./environment.js";

const threads = 2;
const tokens = [3, 1, 4, 1, 5, 9, 2, 6, 299, 0];

/** Bytes of a memory that are no model's: stacks of threads, constants of kernels, and what is left for all that is not counted. */
const machine = await createWasmMachine(threads);
const taken = 2 ** 32 - machine.capacity + uncounted;
await machine.dispose();

/** A model with random weights, or that of the package, in memories that each have room for this share of it. */
async function opened(checkpoint: Checkpoint, share: number, given: LoadOptions = {}): Promise<Model> {
  const bound = bindModel(checkpoint);
  const limit = taken + passBytes(bound, given) + share * lastingBytes(bound, given) + 2 ** 16;
  const options = { backend: "wasm", threads, onWarning: () => {}, ...given } as const;
  const model = await loadCheckpoint(checkpoint, options, undefined, true, limit);
  onTestFinished(() => model.dispose());
  return model;
}

const synthetic = (version: string) => {
  const definition = definitions.find((one) => one.version === version)!;
  const size = definition.newSize({ layers: 6, width: 128, vocabulary: 300 });
  return syntheticCheckpoint({ name: `RWKV-${version}`, definition, size }, "f32");
};
const embedded = () => openCheckpoint(embeddedModel);
const text = "Once upon a time";
const sampling = { maxTokens: 12, seed: 7, temperature: 0.8 };

/** How many layers each memory has. */
const partsOf = ({ info }: Model) =>
  info.strategy?.split(" -> ").map((part) => Number(/^wasm \*(\d+)$/.exec(part)?.[1]));

/** Logits of a prompt and of a token after it, then the state. */
async function outputsOf(model: Model): Promise<number[]> {
  const state = model.createState();
  const beside = { state: model.createState(), tokens: [7, 7], logits: "none" as const };
  const [, all] = await model.forward([beside, { state, tokens, logits: "all" }]);
  const [last] = await model.forward([{ state, tokens: [11] }]);
  return [...all!, ...last!, ...(await state.values())];
}

const tried: readonly { readonly version: string; readonly dtype?: WeightDType }[] = [
  { version: "4" },
  { version: "5.2", dtype: "q4" },
  { version: "6", dtype: "f16" },
  { version: "7", dtype: "q8" },
  { version: "7" },
];

test.each(inBrowser ? tried.slice(-1) : tried)(
  "RWKV-$version, weights as $dtype: logits and states are those of one memory",
  async ({ version, ...options }) => {
    const whole = await opened(synthetic(version), 1, options);
    expect(partsOf(whole)).toBeUndefined();
    const expected = await outputsOf(whole);
    expect(maxDifference(expected, new Array(expected.length).fill(0))).toBeGreaterThan(0.01);
    const divided = await opened(synthetic(version), 0.56, options);
    expect(partsOf(divided)).toEqual([3, 3]);
    expect(divided.info).toMatchObject({ backend: "wasm", dtype: whole.info.dtype, threads: whole.info.threads });
    expect(await outputsOf(divided)).toEqual(expected);
  },
);

test("memories may have a layer each", async () => {
  const model = await opened(synthetic("7"), 0.25);
  expect(partsOf(model)).toEqual([1, 1, 1, 1, 1, 1]);
  expect(await outputsOf(model)).toEqual(await outputsOf(await opened(synthetic("7"), 1)));
});

test("texts, sessions, forks and saved states go from one memory to several and back", async () => {
  const whole = await opened(await embedded(), 1);
  const divided = await opened(await embedded(), 0.6);
  expect(partsOf(divided)).toEqual([2, 2]);
  const expected = await whole.generate(text, sampling).text();
  expect(await divided.generate(text, sampling).text()).toBe(expected);
  const session = divided.session();
  await session.read(text);
  const fork = await session.fork();
  const there = whole.session(await session.save());
  const back = divided.session(await there.save());
  const texts = [session, fork, there, back].map((one) => one.generate(sampling).text());
  expect(new Set(await Promise.all(texts))).toEqual(new Set([expected]));
  const vectors = [whole, divided].map((model) => {
    return embed(model, Int32Array.from(model.tokenizer.encode(text)), undefined, new AbortController().signal);
  });
  const [one, several] = await Promise.all(vectors);
  expect(several).toEqual(one);
  await expect(whole.session(await back.save()).read("")).resolves.not.toThrow();
});

test("inputs that are zero are left unread as in one memory, and their second forms are counted", async () => {
  const options = { skipZeros: true };
  const whole = await opened(synthetic("7"), 1, options);
  const divided = await opened(synthetic("7"), 0.56, options);
  expect(partsOf(divided)).toEqual([3, 3]);
  expect(await outputsOf(divided)).toEqual(await outputsOf(whole));
});

test("two of them at once, each disposed of twice, and used no more", async () => {
  const whole = await opened(await embedded(), 1);
  const [first, second] = await Promise.all([opened(await embedded(), 0.6), opened(await embedded(), 0.37)]);
  expect([first, second].map(partsOf)).toEqual([
    [2, 2],
    [1, 2, 1],
  ]);
  const expected = await whole.generate(text, sampling).text();
  const state = first.createState();
  const texts = [first, second, first].map((model) => model.generate(text, sampling).text());
  expect(await Promise.all(texts)).toEqual([expected, expected, expected]);
  const running = first.generate(text, { ...sampling, maxTokens: 100_000, stopTokens: [] }).text();
  const ended = expect(running).rejects.toThrow(BackendError);
  await Promise.all([first.dispose(), first.dispose()]);
  await first.dispose();
  await ended;
  await expect(first.forward([{ state, tokens }])).rejects.toThrow(BackendError);
  expect(() => first.createState()).toThrow(BackendError);
  await expect(second.forward([{ state, tokens }])).rejects.toThrow(StateError);
  expect(await second.generate(text, sampling).text()).toBe(expected);
});

test("loading is told from 0 to 1, and may be ended by its listener in any part", async () => {
  const told: number[] = [];
  const onProgress = (done: number, total: number) => void told.push(done / total);
  await opened(synthetic("4"), 0.56, { onProgress });
  expect(told.at(-1)).toBe(1);
  expect(told).toEqual(told.toSorted((a, b) => a - b));
  for (const at of [0.01, 0.7]) {
    const ending = opened(synthetic("4"), 0.56, {
      onProgress: (done, total) => {
        if (done / total >= at) throw new DOMException("ended by the user", "AbortError");
      },
    });
    await expect(ending).rejects.toThrow("ended by the user");
  }
});

test("a model that fits into one memory stays in one", async () => {
  const model = await load(undefined, { backend: "wasm", threads });
  onTestFinished(() => model.dispose());
  expect(model.info).not.toHaveProperty("strategy");
});
