// Every shader against the reference operation, over odd widths and all types of weights; in the long tests, in a page with WebGPU.

import { describe, expect, test } from "vitest";
import { referenceBackend } from "#rwkv/backends/reference/reference";
import { GraphBuilder } from "#rwkv/graph/graph-builder";
import { multiply, sigmoid } from "#rwkv/graph/operations/elementwise";
import { chooseToken, type TokenChoice } from "#rwkv/sampling/choose-token";
import { maxDifference } from "./environment.js";
import { elementGraphs, operationGraphs } from "./operation-graphs.js";
import { type GgmlName, randomBlocks } from "./random-blocks.js";
import { bindRandomly, dtypesOf, operationGraph, outputsOfPasses, vocabulary } from "./random-models.js";
import { some } from "./thorough.js";
import { webgpuAsOnGpu, webgpuOnSharedDevice } from "./webgpu-device.js";

const backend = webgpuOnSharedDevice();

/** Operations of the lab's have no shaders. */
const labs = /aft|elman|gru|[aA]ttention|addPosition/;
const names = Object.keys(operationGraphs).filter((name) => !labs.test(name));

describe.each(names.map((name, number) => [name, number] as const))("%s", (name, number) => {
  test.each(some([1, 3, 16, 31, 128], number))("width %i", async (width) => {
    for (const dtype of dtypesOf(name)) {
      const model = bindRandomly(operationGraph(name, width), width);
      const expected = await outputsOfPasses(await referenceBackend.open(model, { threads: 1, dtype }));
      const found = await outputsOfPasses(await backend.open(model, { threads: 1, dtype }));
      const scale = Math.max(1, ...expected.filter((value) => value > -1e29).map(Math.abs));
      // A norm over one or two channels divides by a variance near 0, which magnifies rounding.
      const tolerance = scale * (/Norm/.test(name) ? 2e-4 : name in elementGraphs ? 2e-5 : 1e-5);
      expect(maxDifference(found, expected), dtype).toBeLessThan(tolerance);
    }
  });
});

describe.each([
  ["as software takes them", backend],
  ["as a GPU takes them", webgpuAsOnGpu],
] as const)("products of 1, 3 and 45 rows, over inputs that go past a block, %s", (_, backend) => {
  test.each(["f32", "bf16", "f16", "q8", "q4"] as const)("%s", async (dtype) => {
    const sizes = [[1030, 67] as const, ...(dtype === "f32" || dtype === "q8" ? [[256, 132] as const] : [])];
    for (const [width, outputs] of sizes) {
      const g = new GraphBuilder();
      const x = g.embedding(g.matrix("table", vocabulary, width));
      const gate = sigmoid(g.matmul(g.matrix("gate", outputs, width), x));
      const graph = g.finish(g.selectRows(multiply(gate, g.matmul(g.matrix("w", outputs, width), x))));
      const model = bindRandomly(graph, width);
      const [expected, found] = [
        await referenceBackend.open(model, { threads: 1, dtype }),
        await backend.open(model, { threads: 1, dtype }),
      ];
      for (const rows of [1, 3, 45]) {
        const tokens = Array.from({ length: rows }, (_, i) => i % vocabulary);
        const run = async (runtime: typeof found) =>
          (await runtime.run([{ state: runtime.createState(), tokens, logits: "all" }])).logits;
        expect(maxDifference(await run(found), await run(expected)), `${rows} x ${width}`).toBeLessThan(1e-5);
      }
      await found.dispose();
    }
  });
});

describe.each(["Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q3_K"] as const)("%s", (name: GgmlName) => {
  test("products, and rows of a table", async () => {
    for (const [outputs, inputs] of [
      [1, 256],
      [37, 768],
    ] as const) {
      const g = new GraphBuilder();
      const x = g.embedding(g.matrix("table", 40, inputs));
      const graph = g.finish(g.matmul(g.matrix("w", outputs, inputs), g.selectRows(x)));
      const tensors = new Map([
        ["table", randomBlocks("table", name, [40, inputs], 3)],
        ["w", randomBlocks("w", name, [outputs, inputs], inputs)],
      ]);
      const run = async (from: typeof backend, rows: number) => {
        const runtime = await from.open({ graph, tensors }, { threads: 1 });
        const tokens = Array.from({ length: rows }, (_, i) => (i * 3) % 40);
        const { logits } = await runtime.run([{ state: runtime.createState(), tokens, logits: "all" }]);
        await runtime.dispose();
        return logits;
      };
      for (const [rows, from] of [
        ...[1, 2, 4, 9].map((rows) => [rows, backend] as const),
        ...[1, 2].map((rows) => [rows, webgpuAsOnGpu] as const),
      ]) {
        const expected = await run(referenceBackend, rows);
        const found = await run(from, rows);
        // Where a value lies between two integers, rounding may take it to either, an error of one in 127.
        const largest = Math.max(...expected.map(Math.abs));
        expect(maxDifference(found, expected), `${rows} x ${inputs}`).toBeLessThan(1e-3 * largest);
      }
    }
  });
});

test("tokens are chosen as in JavaScript by as many lanes as on a GPU, from a vocabulary that they share unevenly", async () => {
  const size = 1000;
  const g = new GraphBuilder();
  const x = g.embedding(g.matrix("table", vocabulary, 16));
  const model = bindRandomly(g.finish(g.matmul(g.matrix("w", size, 16), g.selectRows(x))), 3);
  const runtime = await webgpuAsOnGpu.open(model, { threads: 1 });
  const segment = (choice?: TokenChoice) =>
    ({ state: runtime.createState(), tokens: [3], logits: "last", ...(choice && { choice }) }) as const;
  const { logits } = await runtime.run([segment()]);
  const plain = { temperature: 1, topP: 1, topK: 0, minP: 0, adjustments: { tokens: [], amounts: [] } };
  const kinds = [plain, { ...plain, topP: 0.7 }, { ...plain, topK: 300 }, { ...plain, temperature: 0.5, minP: 0.2 }];
  for (const kind of [...kinds, { ...plain, temperature: 0 }]) {
    for (const uniform of [0, 0.13, 0.5, 0.999]) {
      const near = [-2e-5, 0, 2e-5].map((shift) =>
        chooseToken(logits, { ...kind, uniform: Math.min(Math.max(uniform + shift, 0), 1 - 1e-7) }),
      );
      const { tokens } = await runtime.run([segment({ ...kind, uniform })]);
      expect(near, JSON.stringify({ ...kind, uniform })).toContain(tokens[0]);
    }
  }
  await runtime.dispose();
});
