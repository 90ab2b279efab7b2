// Models divided among backends: every version at every seam, whole states, generation, and strategies that are none.

import { BackendError, load, OptionError } from "rwkv";
import { describe, expect, test } from "vitest";
import type { Backend } from "#rwkv/backends/backend";
import { nativeBackend } from "#rwkv/backends/native/native";
import { referenceBackend } from "#rwkv/backends/reference/reference";
import { openSplit } from "#rwkv/backends/split-runtime";
import { wasmBackend } from "#rwkv/backends/wasm/wasm";
import { syntheticCheckpoint } from "#rwkv/bench/synthetic-checkpoint";
import { shape } from "#rwkv/cli/option-parsers";
import { splitGraph } from "#rwkv/graph/split";
import { bindModel } from "#rwkv/models/versions";
import { fixture, maxDifference } from "./environment.js";
import { outputsOf, withRuntime } from "./runtime-outputs.js";

const versions = ["odd", "rwkv5.0", "rwkv5.1", "rwkv5.2", "rwkv6", "rwkv7"];
const tokens = [3, 1, 4, 1, 5, 9, 2, 6];

/** A backend that is several, the first of which have these layers. */
const split = (backends: readonly Backend[], layers: readonly number[], fraction: number[] = []): Backend => ({
  name: "native",
  open: (model, options) =>
    openSplit(
      model as Parameters<typeof openSplit>[0],
      backends.map((backend, i) => ({ backend, layers: layers[i] ?? 0 })),
      { ...options, onProgress: (done, total) => fraction.push(done / total) },
    ),
});

test.each(versions)("%s: the reference and native kernels, in both orders, give what each does alone", async (name) => {
  const path = fixture(`${name}.pth`);
  const alone = await withRuntime(path, nativeBackend, { threads: 2 }, (runtime) => outputsOf(runtime, tokens, 3, [2]));
  const orders = [
    [referenceBackend, nativeBackend],
    [nativeBackend, referenceBackend],
    [wasmBackend, nativeBackend],
  ];
  for (const order of orders) {
    const fraction: number[] = [];
    await withRuntime(path, split(order, [1], fraction), { threads: 2 }, async (runtime) => {
      expect(maxDifference(await outputsOf(runtime, tokens, 3, [2]), alone)).toBeLessThan(1e-5);
    });
    expect(fraction.at(-1)).toBe(1);
    expect(fraction).toEqual(fraction.toSorted((a, b) => a - b));
  }
});

describe.each(["6", "7"])("RWKV-%s of four layers, each its own part", (version) => {
  const made = () => bindModel(syntheticCheckpoint(shape(`${version}:4x64x50`), "f32"));

  test("what goes between them is what later layers need: of RWKV-7 the values of the first, too", () => {
    const { graph } = made();
    const parts = splitGraph(graph, [1, 1, 1]);
    const names = (all: readonly { readonly name: string }[]) => all.map(({ name }) => name).toSorted();
    expect(names(parts.flatMap((part) => part.graph.weights))).toEqual(names(graph.weights));
    expect(parts.flatMap((part) => part.graph.stateVectors)).toEqual(graph.stateVectors);
    const counts = parts.map(({ takes, gives }) => [takes.length, gives.length]);
    expect(counts).toEqual(
      version === "7"
        ? [
            [0, 2],
            [2, 1],
            [2, 1],
            [2, 0],
          ]
        : [
            [0, 1],
            [1, 1],
            [1, 1],
            [1, 0],
          ],
    );
    for (const wrong of [[4], [2, 2], [0], [1.5], [-1]]) expect(() => splitGraph(graph, wrong)).toThrow(RangeError);
  });

  test("the logits and the state are those of one", async () => {
    const outputs = async (backend: Backend) => {
      const runtime = await backend.open(made(), { threads: 1 });
      const found = await outputsOf(runtime, tokens, 3, [2]);
      await runtime.dispose();
      return found;
    };
    const alone = await outputs(nativeBackend);
    const backends = [nativeBackend, referenceBackend, wasmBackend, nativeBackend];
    expect(maxDifference(await outputs(split(backends, [1, 1, 1])), alone)).toBeLessThan(2e-5);
    expect(maxDifference(alone, new Array(alone.length).fill(0))).toBeGreaterThan(0.01);
  });
});

describe("the option", () => {
  const text = "Once upon a time";
  const options = { maxTokens: 12, seed: 7, temperature: 0.8 };

  test("a text is the same as one backend's, and states go from one to the other", async () => {
    const [alone, divided] = await Promise.all([
      load(undefined, { backend: "native", threads: 1 }),
      load(undefined, { strategy: "native *2 -> wasm *1 -> native", threads: 1 }),
    ]);
    expect(divided.info).toMatchObject({
      backend: "native",
      dtype: alone.info.dtype,
      stateBytes: alone.info.stateBytes,
    });
    expect(divided.info.strategy).toMatch(/^native \*2 -> wasm \*1 -> native \*\d+$/);
    const expected = await alone.generate(text, options).text();
    expect(await divided.generate(text, options).text()).toBe(expected);
    const session = divided.session();
    await session.read(text);
    const fork = await session.fork();
    const there = alone.session(await session.save());
    const back = divided.session(await there.save());
    const texts = [session, fork, there, back].map((one) => one.generate(options).text());
    // Sessions that are read and then generate sample their first token from the logits that are computed then.
    expect(new Set(await Promise.all(texts))).toEqual(new Set([expected]));
    const state = divided.createState();
    await state.restore(await there.save());
    expect(maxDifference(await state.values(), await alone.createState(await state.save()).values())).toBe(0);
    await Promise.all([alone.dispose(), divided.dispose()]);
    await expect(divided.forward([])).rejects.toThrow(BackendError);
  });

  test("parts may have types of weights of their own", async () => {
    const model = await load(fixture("rwkv7.pth"), {
      strategy: "native f32 *1 -> native q8",
      threads: 1,
      dtype: "bf16",
    });
    expect(model.info.strategy).toBe("native f32 *1 -> native q8 *1");
    const [logits] = await model.forward([{ state: model.createState(), tokens, logits: "last" }]);
    await model.dispose();
    const exact = await load(fixture("rwkv7.pth"), { backend: "native", threads: 1 });
    const [expected] = await exact.forward([{ state: exact.createState(), tokens, logits: "last" }]);
    await exact.dispose();
    const difference = maxDifference(logits!, expected!);
    expect(difference).toBeGreaterThan(0);
    expect(difference).toBeLessThan(0.2);
  });

  test.each([
    ["native", "two or more"],
    ["native -> wasm", "how many layers"],
    ["cuda fp16 *10 -> cpu fp32", 'found "cuda fp16 *10 -> cpu fp32"'],
    ["native *0 -> wasm", "two or more"],
    ["native *1 -> wasm *2 q8", "two or more"],
    ["native q3 *1 -> wasm", "q4"],
    ["native *9 -> wasm", "fewer than 2 layers before the last part, since the model has 2"],
    ["native *1 -> wasm *9", "2 layers, since the model has 2"],
    [7 as unknown as string, "found 7"],
  ])("%s is none: the error says %s", async (strategy, said) => {
    const error = await load(fixture("rwkv7.pth"), { strategy }).catch((reason: Error) => reason);
    expect(error).toBeInstanceOf(OptionError);
    expect((error as Error).message).toContain(said);
    expect((error as Error).message).toMatch(/^option strategy: expected/);
  });

  test("a backend beside it is refused", async () => {
    await expect(load(undefined, { strategy: "native *1 -> wasm", backend: "wasm" })).rejects.toThrow(
      "option backend: expected none beside a strategy",
    );
  });
});
