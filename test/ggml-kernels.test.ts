// Products with matrices of ggml's types, and tables of them: every kernel against the reference, with weights as the decoders have them.

import { describe, expect, test } from "vitest";
import { referenceBackend } from "#rwkv/backends/reference/reference";
import type { StoredTensor } from "#rwkv/checkpoints/checkpoint";
import { GraphBuilder } from "#rwkv/graph/graph-builder";
import { randomGenerator } from "#rwkv/sampling/random";
import { storedTensor } from "#rwkv/training/initialize";
import { kernels, maxDifference } from "./environment.js";
import { ggmlNames, randomBlocks } from "./random-blocks.js";

const vocabulary = 40;

/** What each is computed as. */
const computed: Readonly<Record<string, string>> = {
  Q8_0: "q8",
  Q4_0: "q4",
  Q4_K: "q4k",
  Q5_K: "q5k",
  Q6_K: "q6k",
  Q3_K: "q6k",
};

function productGraph(outputs: number, inputs: number) {
  const g = new GraphBuilder();
  const x = g.embedding(g.matrix("table", vocabulary, inputs));
  return g.finish(g.matmul(g.matrix("w", outputs, inputs), g.selectRows(x)));
}

function randomTable(inputs: number): StoredTensor {
  const random = randomGenerator(inputs);
  const values = Float32Array.from({ length: vocabulary * inputs }, () => (random.uniform() - 0.5) * random.uniform());
  return storedTensor("table", [vocabulary, inputs], values);
}

const tokensOf = (rows: number) => Array.from({ length: rows }, (_, i) => (i * 3) % vocabulary);

describe.each(ggmlNames)("%s", (name) => {
  test("products are those of the reference", async () => {
    // What kernels compute in blocks of its own goes past a part of the inputs; the others are converted, to types with tests of their own.
    for (const [outputs, inputs] of computed[name]
      ? ([
          [1, 256],
          [37, 768],
          [67, 2304],
        ] as const)
      : ([[37, 768]] as const)) {
      const graph = productGraph(outputs, inputs);
      const tensors = new Map([
        ["table", randomTable(inputs)],
        ["w", randomBlocks("w", name, [outputs, inputs], inputs)],
      ]);
      const results: Float32Array[] = [];
      for (const { backend, threads } of [{ backend: referenceBackend, threads: 1 }, ...kernels]) {
        const runtime = await backend.open({ graph, tensors }, { threads });
        for (const rows of [1, 5]) {
          const segment = { state: runtime.createState(), tokens: tokensOf(rows), logits: "all" } as const;
          results.push((await runtime.run([segment])).logits.slice());
        }
        await runtime.dispose();
      }
      const [one, five] = results as [Float32Array, Float32Array];
      const largest = Math.max(...five.map(Math.abs));
      expect(largest).toBeGreaterThan(0);
      results.slice(2).forEach((found, i) => {
        const { label, threads } = kernels[i >> 1]!;
        const difference = maxDifference(found, i % 2 === 0 ? one : five);
        expect(difference, `${label}, ${threads} threads, ${outputs}x${inputs}`).toBeLessThan(2e-6 * largest);
      });
    }
  });

  test("rows of a table are as they are decoded, to the bit", async () => {
    const inputs = 512;
    const g = new GraphBuilder();
    const graph = g.finish(g.selectRows(g.embedding(g.matrix("table", vocabulary, inputs))));
    const tensors = new Map([["table", randomBlocks("table", name, [vocabulary, inputs], 3)]]);
    const results: Float32Array[] = [];
    for (const { backend, threads } of [{ backend: referenceBackend, threads: 1 }, ...kernels]) {
      const runtime = await backend.open({ graph, tensors }, { threads });
      const segment = { state: runtime.createState(), tokens: tokensOf(vocabulary), logits: "all" } as const;
      results.push((await runtime.run([segment])).logits.slice());
      await runtime.dispose();
    }
    for (const found of results.slice(1)) expect(maxDifference(found, results[0]!)).toBe(0);
  });

  test.runIf(computed[name])("a row's results are the same to the bit whatever its company", async () => {
    for (const [outputs, inputs] of [
      [53, 2304],
      [130, 256],
    ] as const) {
      const graph = productGraph(outputs, inputs);
      const tensors = new Map([
        ["table", randomTable(inputs)],
        ["w", randomBlocks("w", name, [outputs, inputs], inputs)],
      ]);
      for (const { backend, threads, label } of kernels) {
        const runtime = await backend.open({ graph, tensors }, { threads });
        const state = runtime.createState();
        const run = async (tokens: readonly number[]) =>
          (await runtime.run([{ state, tokens, logits: "all" }])).logits.slice();
        const alone: Float32Array[] = [];
        for (let token = 0; token < vocabulary; token++) alone.push(await run([token]));
        for (const rows of [2, 3, 4, 5, 7, 8, 16, 31, 32, 33, 40, 65, 128]) {
          const tokens = tokensOf(rows);
          const together = await run(tokens);
          const differing = tokens.filter((token, i) =>
            together.subarray(i * outputs, (i + 1) * outputs).some((value, o) => value !== alone[token]![o]),
          );
          expect(differing, `${label}, ${rows} rows of ${inputs} inputs`).toEqual([]);
        }
        await runtime.dispose();
      }
    }
  });
});
