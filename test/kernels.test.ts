// Every kernel against the reference operation, on graphs of its own, over odd sizes, element types and threads.

import { describe, expect, test } from "vitest";
import type { Runtime } from "#rwkv/backends/backend";
import { referenceBackend } from "#rwkv/backends/reference/reference";
import { wasmBackend } from "#rwkv/backends/wasm/wasm";
import { bytesSource } from "#rwkv/byte-source";
import { contiguousStrides, type StoredTensor } from "#rwkv/checkpoints/checkpoint";
import { GraphBuilder } from "#rwkv/graph/graph-builder";
import { applyUnary, multiply, sigmoid } from "#rwkv/graph/operations/elementwise";
import type { BoundModel } from "#rwkv/models/versions";
import { allKernels, kernels, maxDifference } from "./environment.js";
import { mixingGraphs, operationGraphs } from "./operation-graphs.js";
import { bindRandomly, dtypesOf, operationGraph, outputsOfPasses, vocabulary } from "./random-models.js";
import { some } from "./thorough.js";

const widths = [1, 3, 16, 31, 65];

describe.each(Object.keys(operationGraphs).map((name, number) => [name, number] as const))("%s", (name, number) => {
  test.each(some(widths, number))("width %i", async (width) => {
    for (const dtype of dtypesOf(name)) {
      const model = bindRandomly(operationGraph(name, width), width);
      const expected = await outputsOfPasses(await referenceBackend.open(model, { threads: 1, dtype }));
      for (const { backend, threads, label } of name in mixingGraphs ? allKernels : kernels) {
        const found = await outputsOfPasses(await backend.open(model, { threads, dtype }));
        const scale = Math.max(1, ...expected.filter((value) => value > -1e29).map(Math.abs));
        // A norm over one or two channels divides by a variance near 0, which magnifies rounding.
        const tolerance = scale * (/Norm/.test(name) ? 5e-5 : 2e-6);
        expect(maxDifference(found, expected), `${label}, ${threads} threads, ${dtype}`).toBeLessThan(tolerance);
      }
    }
  });
});

test("exp and sigmoid over their whole range", async () => {
  const inputs = Float32Array.from({ length: 4001 }, (_, i) => (i - 2000) / 20);
  for (const f of ["exp", "sigmoid"] as const) {
    const g = new GraphBuilder();
    const table = g.matrix("table", 1, inputs.length);
    const graph = g.finish(g.selectRows(applyUnary(f, g.embedding(table))));
    const source = bytesSource("table", new Uint8Array(inputs.buffer));
    const stored: StoredTensor = {
      name: "table",
      dtype: "f32",
      shape: table.shape,
      strides: [inputs.length, 1],
      source,
      offset: 0,
    };
    const model: BoundModel = {
      version: "test",
      size: { layers: 1, width: 0, hidden: 0, vocabulary: 1 },
      graph,
      tensors: new Map([["table", stored]]),
    };
    for (const { backend, threads, label } of kernels) {
      const runtime = await backend.open(model, { threads });
      const values = (
        await runtime.run([{ state: runtime.createState(), tokens: [0], logits: "last" }])
      ).logits.slice();
      inputs.forEach((x, i) => {
        const exact = f === "exp" ? Math.exp(x) : 1 / (1 + Math.exp(-x));
        const found = values[i] as number;
        if (x < -87) expect(found).toBeLessThan(2e-38);
        else if (x > 88 && f === "exp") expect(found).toBeGreaterThan(1e38);
        else expect(Math.abs(found / exact - 1), `${f}(${x}) on ${label}`).toBeLessThan(3e-7);
      });
      await runtime.dispose();
    }
  }
});

describe("products of 1 to 45 rows, over inputs that go past a block", () => {
  test.each(some(["f32", "bf16", "f16", "q8", "q4"] as const, 2))("%s", async (dtype) => {
    for (const [width, outputs] of [
      [1024, 9],
      [1030, 67],
      [255, 130],
    ] as const) {
      const g = new GraphBuilder();
      const x = g.embedding(g.matrix("table", vocabulary, width));
      const gate = sigmoid(g.matmul(g.matrix("gate", outputs, width), x));
      const product = g.matmul(g.matrix("w", outputs, width), x);
      const model = bindRandomly(g.finish(g.selectRows(multiply(gate, product))), width);
      const results: Float32Array[][] = [];
      for (const { backend, threads } of [{ backend: referenceBackend, threads: 1 }, ...kernels]) {
        const runtime = await backend.open(model, { threads, dtype });
        const found: Float32Array[] = [];
        for (const rows of [1, 2, 7, 16, 45]) {
          const tokens = Array.from({ length: rows }, (_, i) => i % vocabulary);
          found.push((await runtime.run([{ state: runtime.createState(), tokens, logits: "all" }])).logits.slice());
        }
        results.push(found);
        await runtime.dispose();
      }
      const [expected, ...others] = results as [Float32Array[], ...Float32Array[][]];
      others.forEach((found, kernel) => {
        found.forEach((logits, i) => {
          const message = `${kernels[kernel]!.label}, ${logits.length / outputs} rows of ${width} inputs`;
          expect(maxDifference(logits, expected[i]!), message).toBeLessThan(5e-6);
        });
      });
    }
  });
});

describe("a row's results are the same to the bit whatever its company", () => {
  test.each(some(["f32", "bf16", "f16", "q8", "q4"] as const, 1))("%s", async (dtype) => {
    for (const [width, outputs] of [
      [2130, 53],
      [512, 16],
      [39, 130],
    ] as const) {
      const g = new GraphBuilder();
      const x = g.embedding(g.matrix("table", vocabulary, width));
      const model = bindRandomly(g.finish(g.selectRows(g.matmul(g.matrix("w", outputs, width), x))), width);
      for (const { backend, threads, label } of kernels) {
        const runtime = await backend.open(model, { threads, dtype });
        const state = runtime.createState();
        const run = async (tokens: readonly number[]) =>
          (await runtime.run([{ state, tokens, logits: "all" }])).logits.slice();
        const alone: Float32Array[] = [];
        for (let token = 0; token < vocabulary; token++) alone.push(await run([token]));
        for (const rows of [...Array.from({ length: 20 }, (_, i) => i + 2), 31, 40, 64, 65, 70, 128]) {
          const tokens = Array.from({ length: rows }, (_, i) => (i * 3) % vocabulary);
          const together = await run(tokens);
          const differing = tokens.filter((token, i) => {
            const own = together.subarray(i * outputs, (i + 1) * outputs);
            return own.some((value, o) => value !== alone[token]![o]);
          });
          expect(differing, `${label}, ${rows} rows of ${width} inputs`).toEqual([]);
        }
        await runtime.dispose();
      }
    }
  });
});

describe("threads claim outputs, and give the bits that one of them gives", () => {
  test.each(some(["f32", "bf16", "q8", "q4"] as const, 2))("%s", async (dtype) => {
    const [width, outputs] = [96, 1003];
    const g = new GraphBuilder();
    const x = g.embedding(g.matrix("table", vocabulary, width));
    const model = bindRandomly(g.finish(g.selectRows(g.matmul(g.matrix("w", outputs, width), x))), outputs);
    const passes = async (runtime: Runtime) => {
      const results: Float32Array[] = [];
      for (const rows of [1, 1, 3, 20, 1, 70, 3, 1]) {
        const tokens = Array.from({ length: rows }, (_, i) => (i + rows) % vocabulary);
        const segment = { state: runtime.createState(), tokens, logits: "all" } as const;
        results.push((await runtime.run([segment])).logits.slice());
      }
      await runtime.dispose();
      return results;
    };
    for (const { backend, threads, label } of kernels.filter(({ threads }) => threads > 1)) {
      const alone = await passes(await backend.open(model, { threads: 1, dtype }));
      expect(await passes(await backend.open(model, { threads, dtype })), label).toEqual(alone);
    }
  });
});

test("a model past WebAssembly's memory is refused before anything is read, with the types that would fit", async () => {
  const g = new GraphBuilder();
  const x = g.embedding(g.matrix("table", vocabulary, 40_000));
  const wide = g.finish(g.selectRows(g.matmul(g.matrix("w", 30_000, 40_000), x)));
  const unread = { name: "w", size: 2 ** 40, readInto: () => Promise.reject(new Error("read")), close: async () => {} };
  const tensors = new Map<string, StoredTensor>();
  for (const { name, shape } of wide.weights) {
    tensors.set(name, { name, dtype: "f32", shape, strides: contiguousStrides(shape), source: unread, offset: 0 });
  }
  const model: BoundModel = {
    version: "test",
    size: { layers: 1, width: 0, hidden: 0, vocabulary },
    graph: wide,
    tensors,
  };
  await expect(wasmBackend.open(model, { threads: 1 })).rejects.toThrow(
    'the model\'s matrices take 4.5 GiB, and WebAssembly has 4.0 GiB in one memory; dtype "f16" (2.2 GiB), dtype "bf16" (2.2 GiB), ' +
      'dtype "q8" (1.2 GiB), dtype "q4" (0.6 GiB) would fit',
  );
});
