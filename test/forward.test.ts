// The model's numbers: logits and states against PyTorch, over backends, threads, chunk sizes, formats and element types.

import { BackendError, load, type Model } from "rwkv";
import { describe, expect, test } from "vitest";
import { fastest, fixture, inBrowser, loadable, maxDifference, readFloats, readJson } from "./environment.js";

const { tokens } = await readJson<{ tokens: number[] }>(fixture("tokens.json"));
const kinds = [...new Set(loadable.map(({ backend }) => backend))];

/** Logits after every token, read in pieces of `chunk`, and the final state. */
async function run(model: Model, chunk: number, ids: readonly number[] = tokens) {
  const state = model.createState();
  const logits: number[] = [];
  for (let at = 0; at < ids.length; at += chunk) {
    const [rows] = await model.forward([{ state, tokens: ids.slice(at, at + chunk), logits: "all" }]);
    logits.push(...(rows as Float32Array));
  }
  const values = await state.values();
  await state.dispose();
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
      dimensions: { layers: 2, width: 31, hidden: 65, vocabulary: 33 },
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
    for (const i of sequences.keys()) {
      expect(maxDifference(together[i]!, alone[i]!.logits)).toBeLessThan(2e-5);
      expect(maxDifference(await states[i]!.values(), alone[i]!.values)).toBeLessThan(2e-4);
    }
    await model.dispose();
  });
});

test("the fixture of extreme keys has keys beyond what exp can take in float32", async () => {
  const model = await load(fixture("extreme-keys.pth"), { backend: fastest });
  // A state holds, for each channel, the largest exponent of the sums of wkv: a key, or what decay left of one.
  const { values } = await run(model, tokens.length);
  const largest = Math.max(...values);
  expect(Math.fround(Math.exp(largest))).toBe(Number.POSITIVE_INFINITY);
  expect(largest).toBeGreaterThan(200);
  await model.dispose();
});

test.skipIf(inBrowser)("the webgpu backend says what it needs in Node", async () => {
  const failure = await load(fixture("odd.pth"), { backend: "webgpu" }).then(
    (model) => model.dispose(),
    (error) => error,
  );
  // Where the optional package is installed and finds a driver, it loads.
  if (failure) {
    expect(failure).toBeInstanceOf(BackendError);
    expect(failure.message).toMatch(/npm install webgpu|no adapter was found/);
  }
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

test("arguments that cannot be run are refused by a rejection that names them", async () => {
  const model = await load(fixture("odd.pth"), { backend: fastest });
  const state = model.createState();
  const refused = (segments: unknown) => expect(model.forward(segments as never)).rejects;
  await refused([{ state, tokens: [33] }]).toThrow("option tokens: expected token ids from 0 to 32, found 33");
  await refused([{ state, tokens: [-1] }]).toThrow("option tokens");
  await refused([{ state, tokens: [1.5] }]).toThrow("option tokens");
  await refused([{ state, tokens: ["1"] }]).toThrow("option tokens");
  await refused([{ state, tokens: "1" }]).toThrow("option tokens: expected an array of token ids");
  await refused([{ state, tokens: [1], logits: "frist" }]).toThrow(
    'option logits: expected none, last, all, found "frist"',
  );
  await refused([{ state, tokens: [1, 2], logits: "all", output: new Float32Array(33) }]).toThrow(
    "option output: expected a Float32Array of 66 floats",
  );
  await refused([{ state: {}, tokens: [1] }]).toThrow("option state: expected a state of this model");
  await refused({ state, tokens: [1] }).toThrow("option segments: expected an array");
  await refused([
    { state, tokens: [1] },
    { state, tokens: [2] },
  ]).toThrow("each state in one segment only");
  const other = await load(fixture("odd.pth"), { backend: fastest });
  await refused([{ state: other.createState(), tokens: [1] }]).toThrow("the state belongs to another model");
  await other.dispose();
  // None of these calls has changed the state.
  expect(await state.values()).toEqual(await model.createState().values());
  await state.dispose();
  await expect(state.values()).rejects.toThrow("the state was disposed");
  await refused([{ state, tokens: [1] }]).toThrow("disposed");
  await model.dispose();
  await model.dispose();
  expect(() => model.createState()).toThrow("the model was disposed");
  await refused([]).toThrow("the model was disposed");
});

test.each([
  [{ dtype: "f64" }, "option dtype: expected f32, f16, bf16, q8, q4"],
  [{ backend: "cuda" }, "option backend: expected native, wasm, webgpu, reference, auto"],
  [{ backend: "toString" }, "option backend"],
  [{ threads: 0 }, "option threads"],
  [{ skipZeros: "no" }, "option skipZeros"],
  [{ threads: "2" }, "option threads"],
  [{ tokenizer: 20 }, "option tokenizer"],
  [{ tokenizer: null }, "option tokenizer"],
  [{ onProgress: 1 }, "option onProgress: expected a function"],
  [{ onWarning: {} }, "option onWarning: expected a function"],
  [{ limits: { waiting: -1 } }, "option limits.waiting"],
  [null, "option options: expected an object"],
])("load refuses %o", async (options, message) => {
  await expect(load(fixture("odd.pth"), options as never)).rejects.toThrow(message);
});

test("later changes to the options of load do not matter", async () => {
  const options: { dtype: "q8" | "f32"; threads: number } = { dtype: "q8", threads: 1 };
  const loading = load(fixture("odd.pth"), options);
  Object.assign(options, { dtype: "f32", threads: 99 });
  const model = await loading;
  expect(model.info).toMatchObject({ dtype: "q8", threads: 1 });
  await model.dispose();
});

test("more logits than an array can hold are an error that says how many can be had", async () => {
  const model = await load(fixture("odd.pth"), { backend: fastest });
  const tokens = new Uint8Array(40_000_000);
  await expect(model.forward([{ state: model.createState(), tokens, logits: "all" }])).rejects.toThrow(
    'at most 32537631 tokens with logits "all"',
  );
  await model.dispose();
});

test("later changes to an array of tokens do not matter", async () => {
  const model = await load(fixture("odd.pth"), { backend: fastest });
  const expected = (await model.forward([{ state: model.createState(), tokens: [1, 2, 3] }]))[0];
  const reused = [1, 2, 3];
  const running = model.forward([{ state: model.createState(), tokens: reused }]);
  reused.fill(2 ** 30);
  reused.length = 1;
  expect((await running)[0]).toEqual(expected);
  await model.dispose();
});

test("logits go into an array that is handed in", async () => {
  const model = await load(fixture("odd.pth"), { backend: fastest });
  const expected = await run(model, 1);
  const state = model.createState();
  const output = new Float32Array(33);
  const logits: number[] = [];
  for (const token of tokens) {
    const [row] = await model.forward([{ state, tokens: [token], output }]);
    expect(row).toBe(output);
    logits.push(...output);
  }
  expect(logits).toEqual(expected.logits);
  await model.dispose();
});
