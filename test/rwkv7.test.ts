// RWKV-7: logits and states against PyTorch, over backends, threads, pieces and company; names of other libraries; what is told of
// relatives that do not run.

import { load, openCheckpoint } from "rwkv";
import { expect, test } from "vitest";
import { matrixTypes } from "#rwkv/backends/placement";
import { referenceBackend } from "#rwkv/backends/reference/reference";
import { planGraph } from "#rwkv/graph/plan";
import { rwkv7 } from "#rwkv/models/rwkv7";
import { bindModel } from "#rwkv/models/versions";
import { fastest, fixture, inBrowser, kernels, maxDifference, readFloats, readJson } from "./environment.js";
import { outputsOf, withRuntime } from "./runtime-outputs.js";

const path = fixture("rwkv7.pth");
const { tokens } = await readJson<{ tokens: number[] }>(fixture("rwkv7.json"));
const everyone = [{ label: "reference", backend: referenceBackend, threads: 1 }, ...kernels];

test("logits and state are PyTorch's, in pieces of any length", async () => {
  const logits = await readFloats(fixture("rwkv7.logits.f32"));
  const state = await readFloats(fixture("rwkv7.state.f32"));
  for (const { label, backend, threads } of everyone) {
    await withRuntime(path, backend, { threads }, async (runtime) => {
      for (const chunk of [1, 3, 16, 45]) {
        const found = await outputsOf(runtime, tokens, chunk);
        expect(maxDifference(found.slice(0, logits.length), logits), `${label}, ${chunk}`).toBeLessThan(2e-5);
        expect(maxDifference(found.slice(logits.length), state), `${label}, ${chunk}`).toBeLessThan(2e-5);
      }
    });
  }
});

test("results are the same to the bit in any pieces, any company, and for any number of threads", async () => {
  for (const { label, backend } of kernels) {
    let expected: number[] | undefined;
    for (const threads of [1, 2, 3]) {
      await withRuntime(path, backend, { threads, dtype: "bf16" }, async (runtime) => {
        expected ??= await outputsOf(runtime, tokens, 1);
        expect(await outputsOf(runtime, tokens, 7), `${label}, ${threads} threads`).toEqual(expected);
        expect(await outputsOf(runtime, tokens, 45, [1, 2, 3]), `${label}, ${threads} threads`).toEqual(expected);
      });
    }
  }
});

test.each(["bf16", "f16", "q8", "q4"] as const)("%s: kernels give what the plain form gives", async (dtype) => {
  const expected = await withRuntime(path, referenceBackend, { threads: 1, dtype }, (runtime) =>
    outputsOf(runtime, tokens, 45),
  );
  for (const { label, backend, threads } of kernels) {
    const found = await withRuntime(path, backend, { threads, dtype }, (runtime) => outputsOf(runtime, tokens, 45));
    expect(maxDifference(found, expected), label).toBeLessThan(2e-4);
  }
});

test("small matrices are not quantized, and the head to no fewer than 8 bits", async () => {
  const checkpoint = await openCheckpoint(path);
  const { graph, tensors } = bindModel(checkpoint);
  const types = matrixTypes(graph, tensors, "q4");
  const typeOf = (name: string) => types.get(graph.weights.find((weight) => weight.name === name)!);
  for (const name of ["w1", "w2", "a1", "a2", "v1", "v2", "g1", "g2"]) {
    expect(typeOf(`blocks.1.att.${name}`), name).toBe("f32");
  }
  expect(typeOf("blocks.1.att.key.weight")).toBe("q4");
  expect(typeOf("head.weight")).toBe("q8");
  await checkpoint.close();
});

test("sizes are read from shapes, and a session's memory is that of the states", async () => {
  const model = await load(path, { backend: fastest });
  expect(model.info).toMatchObject({ version: "7", layers: 2, width: 36, hidden: 50, vocabulary: 37 });
  expect(model.info.dimensions).toMatchObject({
    heads: 3,
    decayRank: 5,
    learningRateRank: 7,
    valueRank: 3,
    gateRank: 9,
  });
  expect(await model.createState().values()).toHaveLength(2 * (36 + 3 * 12 * 12 + 36));
  await model.dispose();
});

test("a layer has eight barriers when one token is decoded", () => {
  const barriersOf = (layers: number) => {
    const size = rwkv7.newSize({ layers, width: 768, vocabulary: 1000 });
    const { barriers } = planGraph([rwkv7.build(size, { layerNormEpsilon: 1e-5 }).output], 128);
    return barriers.filter((barrier) => barrier === "always").length;
  };
  expect(barriersOf(5) - barriersOf(4)).toBe(8);
});

test("a version of one layer has no value of the first layer to mix with", () => {
  const size = rwkv7.newSize({ layers: 1, width: 64, vocabulary: 300 });
  const { weights } = rwkv7.build(size, { layerNormEpsilon: 1e-5 });
  expect(weights.filter(({ name }) => /\.v[012]$/.test(name))).toEqual([]);
});

test.runIf(!inBrowser)("widths that heads do not divide are refused", () => {
  expect(() => rwkv7.newSize({ layers: 1, width: 36, vocabulary: 300 })).toThrow(
    "option width: expected a multiple of 8",
  );
});
