// The model's numbers: logits and states against PyTorch, over backends, threads, chunk sizes, formats and element types.

import { load, type Model } from "rwkv";
import { describe, expect, test } from "vitest";
import { fastest, fixture, loadable, maxDifference, readFloats, readJson } from "./environment.js";

const { tokens, largestExtremeKey } = await readJson<{ tokens: number[]; largestExtremeKey: number }>(
  fixture("tokens.json"),
);
const kinds = [...new Set(loadable.map(({ backend }) => backend))];

/** Logits after every token, read in pieces of `chunk`, and the final state. */
async function run(model: Model, chunk: number, ids: readonly number[] = tokens) {
  const state = model.createState();
  const logits: number[] = [];
  for (let at = 0; at < ids.length; at += chunk) {
    const [rows] = await model.forward([{ state, tokens: ids.slice(at, at + chunk), logits: "all" }]);
    logits.push(...(rows as Float32Array));
  }
  const values = state.values.slice();
  state.dispose();
  return { logits, values };
}

describe.each(loadable)("$backend backend, $threads thread(s)", ({ backend, threads }) => {
  test.each(["odd", "odd-bf16", "odd-f16", "extreme-keys"])("%s: logits and state are PyTorch's", async (name) => {
    const model = await load(fixture(`${name}.pth`), { backend, threads });
    expect(model.info).toMatchObject({
      backend,
      threads,
      version: "4",
      layers: 2,
      width: 31,
      hidden: 65,
      vocabulary: 33,
    });
    const expectedLogits = await readFloats(fixture(`${name}.logits.f32`));
    const expectedState = await readFloats(fixture(`${name}.state.f32`));
    for (const chunk of [1, 3, 7, 40]) {
      const { logits, values } = await run(model, chunk);
      expect(maxDifference(logits, expectedLogits), `logits, chunk ${chunk}`).toBeLessThan(2e-5);
      // Exponents reach into the hundreds in extreme-keys, where float32 has steps of 3e-5.
      expect(maxDifference(values, expectedState), `state, chunk ${chunk}`).toBeLessThan(
        name === "extreme-keys" ? 2e-3 : 2e-4,
      );
    }
    await model.dispose();
  });

  test("a prompt longer than one pass gives what token by token gives", async () => {
    const model = await load(fixture("odd.pth"), { backend, threads });
    const long = Array.from({ length: 300 }, (_, i) => (i * 7 + 3) % 33);
    const atOnce = await run(model, 300, long);
    const serially = await run(model, 1, long);
    expect(maxDifference(atOnce.logits, serially.logits)).toBeLessThan(2e-5);
    expect(maxDifference(atOnce.values, serially.values)).toBeLessThan(2e-4);
    await model.dispose();
  });

  test("several sequences in one forward give what each alone gives", async () => {
    const model = await load(fixture("odd.pth"), { backend, threads });
    const sequences = [
      tokens.slice(0, 5),
      tokens.slice(5, 6),
      tokens.slice(6, 37),
      [...tokens, ...tokens, ...tokens, ...tokens],
    ];
    const alone = await Promise.all(sequences.map((ids) => run(model, 1000, ids)));
    const states = sequences.map(() => model.createState());
    const together = await model.forward(
      sequences.map((ids, i) => ({ state: states[i]!, tokens: ids, logits: "all" })),
    );
    sequences.forEach((_, i) => {
      expect(maxDifference(together[i]!, alone[i]!.logits)).toBeLessThan(2e-5);
      expect(maxDifference(states[i]!.values, alone[i]!.values)).toBeLessThan(2e-4);
    });
    await model.dispose();
  });
});

test("the fixture of extreme keys has keys beyond what exp can take in float32", () => {
  expect(largestExtremeKey).toBeGreaterThan(200);
});

test("logits are given for the tokens that were asked for", async () => {
  const model = await load(fixture("odd.pth"), { backend: fastest });
  const states = [0, 1, 2, 3].map(() => model.createState());
  const results = await model.forward([
    { state: states[0]!, tokens: tokens.slice(0, 4) },
    { state: states[1]!, tokens: tokens.slice(0, 4), logits: "none" },
    { state: states[2]!, tokens: tokens.slice(0, 4), logits: "all" },
    { state: states[3]!, tokens: [] },
  ]);
  expect(results.map((r) => r.length)).toEqual([33, 0, 4 * 33, 0]);
  expect(maxDifference(results[0]!, results[2]!.slice(3 * 33))).toBeLessThan(1e-5);
  await model.dispose();
});

test.each(kinds.filter((backend) => backend !== "reference"))(
  "%s: results are the same to the bit whatever the number of threads",
  async (backend) => {
    const results = [];
    for (const threads of [1, 2, 3]) {
      const model = await load(fixture("odd.pth"), { backend, threads });
      results.push(await run(model, 7));
      await model.dispose();
    }
    expect(results[1]).toEqual(results[0]);
    expect(results[2]).toEqual(results[0]);
  },
);

test.each([
  "odd-legacy.pth",
  "odd-views.pth",
  "odd-squeezed.pth",
  "odd-hugging-face/",
  "odd-hugging-face/model.safetensors.index.json",
])("%s holds the same model", async (name) => {
  const expected = await readFloats(fixture("odd.logits.f32"));
  for (const backend of kinds) {
    const model = await load(fixture(name), { backend });
    expect(maxDifference((await run(model, 40)).logits, expected), backend).toBeLessThan(2e-5);
    await model.dispose();
  }
});

test.each(["bf16", "f16"] as const)("dtype %s rounds a float32 file as PyTorch does", async (dtype) => {
  for (const backend of kinds) {
    const rounded = await load(fixture("odd.pth"), { backend, dtype });
    const stored = await load(fixture(`odd-${dtype}.pth`), { backend });
    expect([rounded.info.dtype, stored.info.dtype]).toEqual([dtype, dtype]);
    // Vectors stay float32 in the one and are rounded in the other, so only the matrices' share is equal.
    expect(maxDifference((await run(rounded, 40)).logits, (await run(stored, 40)).logits)).toBeLessThan(0.1);
    const upcast = await load(fixture(`odd-${dtype}.pth`), { backend, dtype: "f32" });
    expect(maxDifference((await run(upcast, 40)).logits, (await run(stored, 40)).logits)).toBeLessThan(1e-5);
    for (const model of [rounded, stored, upcast]) await model.dispose();
  }
});

test("forward calls wait for each other", async () => {
  const model = await load(fixture("odd.pth"), { backend: fastest });
  const expected = await Promise.all([0, 1, 2].map(async (i) => (await run(model, 40, tokens.slice(i))).logits));
  const states = [0, 1, 2].map(() => model.createState());
  const results = await Promise.all(
    states.map((state, i) => model.forward([{ state, tokens: tokens.slice(i), logits: "all" }])),
  );
  results.forEach(([logits], i) => expect(maxDifference(logits!, expected[i]!)).toBe(0));
  await model.dispose();
});

test("what cannot be run is refused by name", async () => {
  const model = await load(fixture("odd.pth"), { backend: fastest });
  const state = model.createState();
  expect(() => model.forward([{ state, tokens: [33] }])).toThrow(
    "option tokens: expected token ids from 0 to 32, found 33",
  );
  expect(() => model.forward([{ state, tokens: [-1] }])).toThrow("option tokens");
  expect(() => model.forward([{ state, tokens: [1.5] }])).toThrow("option tokens");
  expect(() =>
    model.forward([
      { state, tokens: [1] },
      { state, tokens: [2] },
    ]),
  ).toThrow("each state in one segment only");
  state.dispose();
  expect(() => state.values).toThrow("the state was disposed");
  await expect(model.forward([{ state, tokens: [1] }])).rejects.toThrow("disposed");
  await model.dispose();
  await model.dispose();
  expect(() => model.createState()).toThrow("the model was disposed");
});
