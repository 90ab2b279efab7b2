// The WebGPU backend in a page, on the software adapter of Chromium: logits and states of every version against PyTorch, every type of
// weights against the plain form, pieces and company, saved states, and what goes wrong.

import { BackendError, load, openCheckpoint, removeStoredModel } from "rwkv";
import { describe, expect, test } from "vitest";
import { commands } from "vitest/browser";
import { openGpu } from "#platform/gpu";
import type { Backend } from "#rwkv/backends/backend";
import { referenceBackend } from "#rwkv/backends/reference/reference";
import { openSplit } from "#rwkv/backends/split-runtime";
import { wasmBackend } from "#rwkv/backends/wasm/wasm";
import { Device, isSoftware } from "#rwkv/backends/webgpu/device";
import { layOut } from "#rwkv/backends/webgpu/matrices";
import { openOn } from "#rwkv/backends/webgpu/webgpu";
import { bindModel } from "#rwkv/models/versions";
import { chooseToken, type TokenChoice } from "#rwkv/sampling/choose-token";
import { randomGenerator } from "#rwkv/sampling/random";
import { fixture, maxDifference, readFloats, readJson } from "./environment.js";
import { outputsOf, withRuntime } from "./runtime-outputs.js";
import { sharedDevice, webgpuOnSharedDevice } from "./webgpu-device.js";

const backend = webgpuOnSharedDevice();

async function tokensOf(name: string): Promise<readonly number[]> {
  if (name === "rwkv7") return (await readJson<{ tokens: number[] }>(fixture("rwkv7.json"))).tokens;
  if (!name.startsWith("rwkv")) return (await readJson<{ tokens: number[] }>(fixture("tokens.json"))).tokens;
  const { rows } = await readJson<{ rows: number[][] }>(fixture(`${name}.gradients.json`));
  return rows[0] as number[];
}

/** A model of each version. */
const fixtures = ["extreme-keys", "rwkv5.0", "rwkv5.1", "rwkv5.2", "rwkv6", "rwkv7"];

test.each(fixtures)("%s: logits and state are PyTorch's, in pieces and in company", async (name) => {
  const tokens = await tokensOf(name);
  const logits = await readFloats(fixture(`${name}.logits.f32`));
  const state = await readFloats(fixture(`${name}.state.f32`));
  await withRuntime(fixture(`${name}.pth`), backend, { threads: 1 }, async (runtime) => {
    // All at once; one token each of two sequences, which takes other shaders; pieces beside pieces.
    const ways = [[tokens.length, []] as const, [1, [2]] as const, [9, [1, 2, 3]] as const];
    for (const [chunk, company] of ways) {
      const found = await outputsOf(runtime, tokens, chunk, company);
      expect(maxDifference(found.slice(0, logits.length), logits), `logits, ${chunk}`).toBeLessThan(1e-4);
      // Exponents reach into the hundreds in extreme-keys, where float32 has steps of 3e-5.
      const tolerance = name === "extreme-keys" ? 2e-3 : 1e-3;
      expect(maxDifference(found.slice(logits.length), state), `state, ${chunk}`).toBeLessThan(tolerance);
    }
  });
});

test("a model by name is uploaded while it is downloaded", async () => {
  const endpoint = await commands.startHub();
  const tale = "hf:someone/some-rwkv/tale.safetensors";
  const logitsOf = async (model: Awaited<ReturnType<typeof load>>) => {
    const [logits] = await model.forward([{ state: model.createState(), tokens: [1, 2, 3], logits: "all" }]);
    await model.dispose();
    return logits;
  };
  try {
    await removeStoredModel(tale);
    await commands.hubHold(4_500_000); // of 5.4 MB
    let share = 0;
    const onProgress = (done: number, total: number) => {
      share = done / total;
    };
    const loading = load(tale, { cache: true, endpoint, backend: "webgpu", onProgress });
    loading.catch(() => {});
    // The download alone is one half.
    await expect.poll(() => share).toBeGreaterThan(0.55);
    await commands.hubHold(null);
    expect(await logitsOf(await loading)).toEqual(await logitsOf(await load(undefined, { backend: "webgpu" })));
  } finally {
    await removeStoredModel(tale);
    await commands.stopHub();
  }
});

describe("types of weights", () => {
  test.each(["bf16", "f16", "q8", "q4"] as const)("%s: shaders give what the plain form gives", async (dtype) => {
    const path = fixture("rwkv7.pth");
    const tokens = (await tokensOf("rwkv7")).slice(0, 20);
    const expected = await withRuntime(path, referenceBackend, { threads: 1, dtype }, (runtime) =>
      outputsOf(runtime, tokens, 20),
    );
    await withRuntime(path, backend, { threads: 1, dtype }, async (runtime) => {
      // Twenty rows are a tile's; one, two and four have shaders of their own.
      for (const chunk of dtype === "q8" ? [20, 4, 3, 2, 1] : [20, 1]) {
        const found = await outputsOf(runtime, tokens.slice(0, 4 + (chunk === 20 ? 16 : 0)), chunk);
        const logits = found.slice(0, found.length - runtime.stateLength);
        expect(maxDifference(logits, expected.slice(0, logits.length)), `in pieces of ${chunk}`).toBeLessThan(1e-3);
      }
    });
  });
});

test("tokens are chosen on the device as in JavaScript", async () => {
  await withRuntime(fixture("odd.pth"), backend, { threads: 1 }, async (runtime) => {
    const tokens = [1, 2, 3];
    const segment = (logits: "last", more: object = {}) => ({ state: runtime.createState(), tokens, logits, ...more });
    const { logits } = await runtime.run([segment("last")]);
    const none = { tokens: [], amounts: [] };
    const even = new Uint32Array([0x55555555, 0x1]);
    const plain = { temperature: 1, topP: 1, topK: 0, minP: 0, adjustments: none };
    const kinds: Omit<TokenChoice, "uniform">[] = [
      plain,
      { ...plain, temperature: 0 },
      { ...plain, temperature: 0.3, topP: 0.4 },
      { ...plain, topK: 5 },
      { ...plain, topK: 1 },
      { ...plain, temperature: 2, minP: 0.3, topK: 20, topP: 0.95 },
      { ...plain, mask: even },
      { ...plain, topP: 0, mask: even },
      { ...plain, temperature: 0, adjustments: { tokens: [7, 3], amounts: [50, Number.NEGATIVE_INFINITY] } },
      { ...plain, topK: 3, adjustments: { tokens: [0, 1, 2, 3, 4, 5], amounts: [9, 9, 9, 9, 9, 9] } },
    ];
    const random = randomGenerator(4);
    const choices = kinds.flatMap((kind) => [1, 2, 3, 4].map(() => ({ ...kind, uniform: random.uniform() })));
    const pass = choices.map((choice) => segment("last", { choice, choiceOnly: true }));
    const result = await runtime.run(pass);
    expect(result.logits).toHaveLength(0);
    for (const [i, choice] of choices.entries()) {
      // A random number at the edge between two tokens may fall to either.
      const near = [-1e-5, 0, 1e-5].map((shift) => {
        return chooseToken(logits, { ...choice, uniform: Math.min(Math.max(choice.uniform + shift, 0), 1 - 1e-7) });
      });
      expect(near, `choice ${i}`).toContain(result.tokens[i]);
    }
    const banned = { ...plain, uniform: 0.5, mask: new Uint32Array(2) };
    const mixed = await runtime.run([segment("last", { choice: banned }), segment("last")]);
    expect(mixed.tokens).toEqual([-1]);
    // Other shaders take more rows, and sum in another order.
    expect(maxDifference(mixed.logits.slice(33), logits)).toBeLessThan(1e-5);
    expect(maxDifference(mixed.logits.slice(0, 33), logits)).toBeLessThan(1e-5);
    for (const { state } of pass) state.release();
  });
});

test("the device goes on by itself to the tokens that passes one by one give", async () => {
  await withRuntime(fixture("odd.pth"), backend, { threads: 1 }, async (runtime) => {
    const plain = { topP: 1, topK: 0, minP: 0, adjustments: { tokens: [], amounts: [] } };
    const choices = [0.1, 0.9, 0.4, 0.6].map((uniform, i) => ({ ...plain, uniform, temperature: i === 2 ? 0 : 1 }));
    const [alone, ahead] = [runtime.createState(), runtime.createState()];
    const expected: number[] = [];
    for (const choice of choices) {
      const tokens = [expected.at(-1) ?? 5];
      const pass = await runtime.run([{ state: alone, tokens, logits: "last", choice, choiceOnly: true }]);
      expected.push(...pass.tokens);
    }
    expect(await runtime.runAhead!(ahead, 5, choices)).toEqual(expected);
    expect(new Set(expected).size).toBeGreaterThan(1);
    expect(maxDifference(await runtime.readState(ahead), await runtime.readState(alone))).toBe(0);
  });
});

test("a text is the same whether the device goes on by itself or waits for each token", async () => {
  const model = await load(undefined, { backend: "webgpu" });
  const plain = await load(undefined, { backend: "wasm" });
  const options = { maxTokens: 10, seed: 5, temperature: 0.8, topP: 0.9 };
  const { passes } = model.scheduler;
  const text = await model.generate("Once upon a time", options).text();
  expect(model.scheduler.passes - passes).toBe(11); // one of the prompt
  const session = model.session();
  await session.read("Once upon a time");
  expect(await session.generate(options).text()).toBe(text);
  expect(await plain.generate("Once upon a time", options).text()).toBe(text);
  // Two at once take turns, token by token.
  const both = await Promise.all([options, options].map((own) => model.generate("Once upon a time", own).text()));
  expect(both).toEqual([text, text]);
  await Promise.all([model.dispose(), plain.dispose()]);
});

test.each(["odd", "rwkv7"])(
  "%s, divided between the device and WebAssembly, gives PyTorch's logits and state",
  async (name) => {
    const tokens = await tokensOf(name);
    const expected = [
      ...(await readFloats(fixture(`${name}.logits.f32`))),
      ...(await readFloats(fixture(`${name}.state.f32`))),
    ];
    for (const order of [
      [backend, wasmBackend],
      [wasmBackend, backend],
    ]) {
      const divided: Backend = {
        name: "webgpu",
        open: (model, options) =>
          openSplit(
            model as Parameters<typeof openSplit>[0],
            order.map((own) => ({ backend: own, layers: 1 })),
            options,
          ),
      };
      await withRuntime(fixture(`${name}.pth`), divided, { threads: 1 }, async (runtime) => {
        expect(maxDifference(await outputsOf(runtime, tokens, 9, [1, 2]), expected)).toBeLessThan(1e-3);
        expect(runtime.runAhead).toBeUndefined();
      });
    }
  },
);

test("a text of a divided model is that of one, and its states are", async () => {
  const options = { maxTokens: 8, seed: 5, temperature: 0.8, topP: 0.9 };
  const plain = await load(undefined, { backend: "wasm" });
  const expected = await plain.generate("Once upon a time", options).text();
  for (const strategy of ["webgpu *2 -> wasm", "wasm *3 -> webgpu"]) {
    const model = await load(undefined, { strategy });
    expect(await model.generate("Once upon a time", options).text()).toBe(expected);
    const session = model.session();
    await session.read("Once upon a time");
    expect(
      await plain
        .session(await session.save())
        .generate(options)
        .text(),
    ).toBe(expected);
    await model.dispose();
  }
  await plain.dispose();
});

test("matrices in many buffers, each in parts, give the same", async () => {
  const tokens = (await tokensOf("rwkv7")).slice(0, 6);
  const run = (from: typeof backend) =>
    withRuntime(fixture("rwkv7.pth"), from, { threads: 1 }, (runtime) => outputsOf(runtime, tokens, 6));
  expect(maxDifference(await run(webgpuOnSharedDevice(4096)), await run(backend))).toBe(0);
});

test("a model: states saved and restored, many at once, disposed of twice", async () => {
  const model = await load(fixture("odd.pth"), { backend: "webgpu" });
  expect(model.info).toMatchObject({ backend: "webgpu", version: "4", threads: 1 });
  const tokens = await tokensOf("odd");
  const state = model.createState();
  await model.forward([{ state, tokens: tokens.slice(0, 1) }]);
  const saved = await state.save();
  const states = Array.from({ length: 5 }, () => model.createState(saved)); // more than there is room for at first
  const rows = await model.forward([state, ...states].map((each, i) => ({ state: each, tokens: [3 + (i % 2)] })));
  for (const [i, row] of rows.entries()) expect(maxDifference(row, rows[i % 2]!)).toBeLessThan(1e-5);
  expect(maxDifference(rows[0]!, rows[1]!)).toBeGreaterThan(1e-3);
  await state.restore(saved);
  const [again] = await model.forward([{ state, tokens: [3] }]);
  expect(maxDifference(again!, rows[0]!)).toBeLessThan(1e-5);
  await state.dispose();
  await model.dispose();
  await model.dispose();
  await expect(model.forward([])).rejects.toThrow("the model was disposed");
});

test("two models at once", async () => {
  const [a, b] = await Promise.all(
    ["odd", "extreme-keys"].map((name) => load(fixture(`${name}.pth`), { backend: "webgpu" })),
  );
  const run = (model: typeof a) => model!.forward([{ state: model!.createState(), tokens: [1] }]);
  const [before] = await Promise.all([run(a), run(b)]);
  await b!.dispose();
  expect(maxDifference((await run(a))[0]!, before![0]!)).toBe(0);
  await a!.dispose();
});

describe("what goes wrong is an error that says so", () => {
  async function opened(given?: Device) {
    const device = given ?? (await Device.open({ largestBuffer: 2 ** 27 }));
    const checkpoint = await openCheckpoint(fixture("odd.pth"));
    const runtime = await openOn(device, bindModel(checkpoint), { threads: 1 });
    await checkpoint.close();
    return { device, runtime };
  }

  test("a device that is lost, with a pass on its way and after", async () => {
    const { device, runtime } = await opened();
    const state = runtime.createState();
    const segment = { state, tokens: [1], logits: "last" } as const;
    await runtime.run([segment]);
    const pass = runtime.run([segment]);
    device.gpu.destroy();
    await expect(pass).rejects.toThrow(/webgpu backend: the device was lost .* must be loaded again/);
    await expect(runtime.run([segment])).rejects.toThrow("the device was lost");
    await expect(runtime.readState(state)).rejects.toThrow("the device was lost");
    expect(() => runtime.createState()).toThrow(BackendError);
    await runtime.dispose();
  });

  test("a model that is disposed of with a pass on its way, and twice", async () => {
    const { runtime } = await opened((await sharedDevice()).retain());
    const state = runtime.createState();
    await runtime.run([{ state, tokens: [1], logits: "last" }]);
    const pass = runtime.run([{ state, tokens: [1], logits: "last" }]);
    await Promise.all([runtime.dispose(), runtime.dispose(), expect(pass).rejects.toThrow("the model was disposed")]);
    await expect(runtime.run([{ state, tokens: [1], logits: "last" }])).rejects.toThrow("the model was disposed");
  });

  test("states that were disposed of, or belong to another model", async () => {
    const { runtime } = await opened((await sharedDevice()).retain());
    const state = runtime.createState();
    state.release();
    state.release();
    await expect(runtime.run([{ state, tokens: [1], logits: "last" }])).rejects.toThrow("the state was disposed");
    const tokens = Array.from({ length: 129 }, () => 1);
    await expect(runtime.run([{ state: runtime.createState(), tokens, logits: "last" }])).rejects.toThrow(
      "more than 128 tokens",
    );
    await runtime.dispose();
  });

  test("a device without memory for the weights", async () => {
    // The software adapter gives whatever is asked for, so the answer of one that does not stands in its place.
    const device = await Device.open({ largestBuffer: 2 ** 27 });
    let asked = 0;
    device.gpu.popErrorScope = async () => (++asked === 2 ? new GPUOutOfMemoryError("no room") : null);
    const checkpoint = await openCheckpoint(fixture("odd.pth"));
    await expect(openOn(device, bindModel(checkpoint), { threads: 1 })).rejects.toThrow(
      /webgpu backend: the device has not enough memory for weights 1 of 1 \(\d+ of \d+ bytes\) \(no room\)/,
    );
    await checkpoint.close();
  });

  test("errors of the device that nobody waits for", async () => {
    const { device, runtime } = await opened();
    device.gpu.createBuffer({ size: 16, usage: 0 });
    await expect
      .poll(() => runtime.run([{ state: runtime.createState(), tokens: [1], logits: "last" }]).catch(String))
      .toMatch("BackendError: webgpu backend: ");
    await runtime.dispose();
  });

  test("a matrix that is over the adapter's limits", async () => {
    const checkpoint = await openCheckpoint(fixture("odd.pth"));
    const { graph } = bindModel(checkpoint);
    const types = new Map(graph.weights.filter(({ op }) => op === "matrix").map((weight) => [weight, "f32" as const]));
    expect(() => layOut(types, 1000)).toThrow(
      "webgpu backend: sixteen rows of emb.weight take 2048 bytes, and the adapter has a limit of 1000 bytes a buffer",
    );
    await checkpoint.close();
    const device = await sharedDevice();
    expect(() => device.buffer("the values of a pass", 2 ** 40, 128)).toThrow(
      /the values of a pass takes 1099511627776 bytes, and the adapter has a limit of \d+/,
    );
  });
});

test("subgroups are taken where the adapter has them, and give what is given without them", async () => {
  const adapter = await (await openGpu()).requestAdapter();
  const device = await sharedDevice();
  expect(device.hasSubgroups).toBe(adapter?.features.has("subgroups"));
  const without = await Device.open({ largestBuffer: 2 ** 27, withoutSubgroups: true });
  expect(without.hasSubgroups).toBe(false);
  const tokens = (await tokensOf("rwkv7")).slice(0, 4);
  const outputs = await Promise.all(
    [device.retain(), without].map((own) => {
      const on: Backend = { name: "webgpu", open: (model, options) => openOn(own, model, options) };
      return withRuntime(fixture("rwkv7.pth"), on, { threads: 1 }, (runtime) => outputsOf(runtime, tokens, 1));
    }),
  );
  expect(maxDifference(outputs[0]!, outputs[1]!)).toBeLessThan(1e-5);
});

test("the adapter here is known to be software, which is not taken unasked", async () => {
  const adapter = await (await openGpu()).requestAdapter();
  expect(isSoftware(adapter?.info)).toBe(true);
  const model = await load(fixture("odd.pth"), { backend: "auto" });
  expect(model.info.backend).toBe("wasm");
  await model.dispose();
});
