// Products that skip zeros give the bits of those that read them: over types, odd sizes, threads, and rows with any share of zeros.

import { openCheckpoint } from "rwkv";
import { describe, expect, test } from "vitest";
import type { Runtime } from "#rwkv/backends/backend";
import { matrixUses } from "#rwkv/backends/matrix-uses";
import { referenceBackend } from "#rwkv/backends/reference/reference";
import { bytesSource } from "#rwkv/byte-source";
import { contiguousStrides } from "#rwkv/checkpoints/checkpoint";
import { GraphBuilder } from "#rwkv/graph/graph-builder";
import { reluSquared } from "#rwkv/graph/operations/elementwise";
import { matmul, sparseMatmul } from "#rwkv/graph/operations/matmul";
import { planGraph } from "#rwkv/graph/plan";
import { rwkv4 } from "#rwkv/models/rwkv4";
import { type BoundModel, bindModel } from "#rwkv/models/versions";
import { randomGenerator } from "#rwkv/sampling/random";
import { fixture, kernels, maxDifference } from "./environment.js";
import { bindRandomly, vocabulary } from "./random-models.js";
import { some } from "./thorough.js";

const types = ["f32", "bf16", "f16", "q8", "q4"] as const;

/** A product of squared ReLU with rows whose share of zeros grows with the token: none in the first, nothing else in the last. */
function sparseModel(width: number, outputs: number): BoundModel {
  const g = new GraphBuilder();
  const x = reluSquared(g.embedding(g.matrix("table", vocabulary, width)));
  const model = bindRandomly(g.finish(g.selectRows(g.matmul(g.matrix("w", outputs, width), x))), width + outputs);
  const random = randomGenerator(width);
  const table = Float32Array.from({ length: vocabulary * width }, (_, i) => {
    const share = Math.floor(i / width) / (vocabulary - 1);
    return random.uniform() < share ? -1 : random.uniform() + 0.01;
  });
  const shape = [vocabulary, width];
  const source = bytesSource("table", new Uint8Array(table.buffer));
  const stored = { name: "table", dtype: "f32", shape, strides: contiguousStrides(shape), source, offset: 0 } as const;
  return { ...model, tensors: new Map([...model.tensors, ["table", stored]]) };
}

async function logitsOf(runtime: Runtime): Promise<Float32Array[]> {
  const results: Float32Array[] = [];
  const pass = async (tokens: readonly number[]) => {
    const state = runtime.createState();
    results.push((await runtime.run([{ state, tokens, logits: "all" }])).logits.slice());
  };
  for (let token = 0; token < vocabulary; token++) await pass([token]);
  // Few rows that are mostly zeros, few and many that are not.
  await pass([6, 5, 5]);
  for (const rows of [2, 9, 33, 70]) await pass(Array.from({ length: rows }, (_, i) => (i * 3) % vocabulary));
  await runtime.dispose();
  return results;
}

/** Inputs and outputs: of less than a block and a line of them, of more than are summed together, of whole ones and not. */
const sizes = [
  [5, 3],
  [39, 130],
  [255, 67],
  [96, 1003],
  [2130, 65],
  [1030, 33],
] as const;

describe.each(types.map((dtype, number) => [dtype, number] as const))("%s", (dtype, number) => {
  test.each(some(sizes, number))("%i inputs, %i outputs", async (width, outputs) => {
    const model = sparseModel(width, outputs);
    const plain = await logitsOf(await referenceBackend.open(model, { threads: 1, dtype }));
    for (const { backend, threads, label } of kernels) {
      const expected = await logitsOf(await backend.open(model, { threads, dtype }));
      const found = await logitsOf(await backend.open(model, { threads, dtype, skipZeros: true }));
      const differing = found.flatMap((logits, i) => {
        const bits = new Uint32Array(logits.buffer);
        return bits.every((word, k) => word === new Uint32Array(expected[i]!.buffer)[k]) ? [] : [i];
      });
      expect(differing, label).toEqual([]);
      found.forEach((logits, i) => {
        const scale = Math.max(1, ...plain[i]!.map(Math.abs));
        expect(maxDifference(logits, plain[i]!), label).toBeLessThan(scale * 5e-6);
      });
    }
  });
});

test("a row with a value that is not a number, or infinite, gives none", async () => {
  const model = sparseModel(80, 20);
  const { source, ...stored } = model.tensors.get("table")!;
  const table = new Float32Array(vocabulary * 80);
  await source.readInto(0, new Uint8Array(table.buffer));
  table.fill(-1, 0, 160);
  table[7] = Number.NaN;
  table[80 + 33] = Number.POSITIVE_INFINITY;
  const broken = { ...stored, source: bytesSource("table", new Uint8Array(table.buffer)) };
  const tensors = new Map([...model.tensors, ["table", broken]]);
  for (const { backend, threads, label } of kernels) {
    for (const dtype of types) {
      const runtime = await backend.open({ ...model, tensors }, { threads, dtype, skipZeros: true });
      for (const token of [0, 1]) {
        const { logits } = await runtime.run([{ state: runtime.createState(), tokens: [token], logits: "all" }]);
        expect(
          logits.every((value) => !Number.isFinite(value)),
          `${label}, ${dtype}, token ${token}`,
        ).toBe(true);
      }
      await runtime.dispose();
    }
  }
});

const files = ["odd.pth", "odd-bf16.pth", "rwkv5.2.pth", "rwkv6.pth", "rwkv7.pth"];
describe.each(files.map((name, number) => [name, number] as const))("%s", (name, number) => {
  test.each(some(["q4", "q8", "bf16", "f32"] as const, number))("all logits in %s", async (dtype) => {
    const checkpoint = await openCheckpoint(fixture(name));
    const model = bindModel(checkpoint);
    const tokens = Array.from({ length: 40 }, (_, i) => (i * 7 + 3) % model.size.vocabulary);
    const all = async (runtime: Runtime) => {
      const state = runtime.createState();
      const results: Float32Array[] = [];
      const run = async (part: readonly number[]) =>
        void results.push((await runtime.run([{ state, tokens: part, logits: "all" }])).logits.slice());
      await run(tokens.slice(0, 20));
      await run(tokens.slice(20, 22));
      for (const token of tokens.slice(22)) await run([token]);
      await runtime.dispose();
      return results;
    };
    for (const { backend, threads, label } of kernels) {
      const expected = await all(await backend.open(model, { threads, dtype }));
      expect(await all(await backend.open(model, { threads, dtype, skipZeros: true })), label).toEqual(expected);
    }
    await checkpoint.close();
  });
});

describe("which products skip zeros", () => {
  const size = { layers: 2, width: 8, hidden: 32, vocabulary: 50 };
  const graph = rwkv4.build(size, { layerNormEpsilon: 1e-5 });
  const values = ["blocks.0.ffn.value.weight", "blocks.1.ffn.value.weight"];

  test("those of matrices that only rows of squared ReLU are multiplied by", () => {
    expect([...matrixUses(graph).sparse].map(({ name }) => name)).toEqual(values);
    const g = new GraphBuilder();
    const w = g.matrix("w", 8, 8);
    const x = g.matmul(w, g.embedding(g.matrix("table", 5, 8)));
    expect(matrixUses(g.finish(g.selectRows(g.matmul(w, reluSquared(x))))).sparse.size).toBe(0);
  });

  test("with all that products end with", () => {
    const byInput = new Map([...matrixUses(graph).sparse].map((weight) => [weight, { ...weight }]));
    const plan = planGraph([graph.output], 16, { byInput }).steps.flat();
    const sparse = plan.filter(({ kernel }) => kernel === "sparseMatmul");
    expect(sparse.map(({ call }) => call && sparseMatmul.operandsOf(call)?.weight.name)).toEqual(values);
    for (const operation of sparse) expect(operation).toMatchObject({ multiplier: {}, addend: {} });
    expect(plan.flatMap(({ call }) => (call && matmul.operandsOf(call)?.weight.name) ?? [])).not.toContain(values[0]);
  });
});
