// The package in a page that is served without COOP and COEP headers, which may not share memory with workers: kernels run on
// the page's own thread. Run by vitest's browser project without isolation, in Chromium.

import { load, type Session } from "rwkv";
import { expect, test } from "vitest";
import { loadCheckpoint } from "#rwkv/load";
import { fixture, maxDifference, readFloats, readJson } from "./environment.js";
import { syntheticRwkv4 } from "./synthetic-rwkv4.js";

test("the page is not isolated", () => {
  expect(globalThis.crossOriginIsolated).toBe(false);
});

test("the embedded model loads and writes words, on one thread", async () => {
  const model = await load(undefined, { threads: 4 });
  expect(model.info).toMatchObject({ backend: "wasm", threads: 1, vocabulary: 2048 });
  const text = await model.generate("Once upon a time there was a", { maxTokens: 40, seed: 7 }).text();
  expect(text).toMatch(/ (the|and|was|had|to) /);
  await model.dispose();
});

test("a checkpoint gives the logits of PyTorch", async () => {
  const { tokens } = await readJson<{ tokens: number[] }>(fixture("tokens.json"));
  const model = await load(fixture("odd.pth"));
  const [logits] = await model.forward([{ state: model.createState(), tokens, logits: "all" }]);
  expect(maxDifference(logits!, await readFloats(fixture("odd.logits.f32")))).toBeLessThan(2e-5);
  await model.dispose();
});

test("a divided model gives the logits of PyTorch while its memories move", async () => {
  const { tokens } = await readJson<{ tokens: number[] }>(fixture("tokens.json"));
  const model = await load(fixture("odd.pth"), { strategy: "wasm *1 -> wasm" });
  const running = model.forward([{ state: model.createState(), tokens, logits: "all" }]);
  const states: unknown[] = [];
  for (let i = 0; i < 40; i++) {
    // Memory that is not shared moves when it grows, which many states make it do.
    for (let j = 0; j < 500; j++) states.push(model.createState());
    await Promise.resolve();
  }
  const [logits] = await running;
  expect(maxDifference(logits!, await readFloats(fixture("odd.logits.f32")))).toBeLessThan(2e-5);
  expect(states).toHaveLength(20_000);
  await model.dispose();
});

test("a model of 12 layers of 512 loads and computes", async () => {
  const size = { layers: 12, width: 512, hidden: 2048, vocabulary: 500 };
  const model = await loadCheckpoint(syntheticRwkv4(size, "bf16"), {}, undefined, false);
  const [logits] = await model.forward([{ state: model.createState(), tokens: [1, 2, 3], logits: "all" }]);
  expect(logits).toHaveLength(3 * 500);
  expect(logits!.every(Number.isFinite)).toBe(true);
  await model.dispose();
});

test("a session is forked many times, and each fork goes its own way", async () => {
  const model = await load();
  const session = model.session();
  await session.read("Once upon a time");
  const forks: Session[] = [];
  for (let i = 0; i < 200; i++) forks.push(await session.fork());
  const options = { maxTokens: 5, temperature: 0 };
  const [first, last, own] = [forks[0]!, forks[199]!, session].map((each) => each.generate(options).text());
  expect(await last).toBe(await first);
  expect(await own).toBe(await first);
  await model.dispose();
});

test("the page keeps running between the tokens of a long text, and can abort it", async () => {
  const model = await load();
  const controller = new AbortController();
  let timers = 0;
  const timer = setInterval(() => {
    if (++timers === 3) controller.abort();
  }, 10);
  const options = { maxTokens: 100_000, stopTokens: [], signal: controller.signal };
  const { finishReason } = await model.generate("Once upon a time", options).result;
  clearInterval(timer);
  expect(finishReason).toBe("aborted");
  await model.dispose();
});
