// What other architectures mix tokens with, against PyTorch: logits in parts of all sizes, and gradients, over sequences longer
// than the tiles of the kernels.

import { type Checkpoint, openCheckpoint, readFloat32, type StoredTensor } from "rwkv";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { referenceBackend } from "#rwkv/backends/reference/reference";
import { openReferenceTraining } from "#rwkv/backends/reference/reference-training";
import type { RowNode } from "#rwkv/graph/graph";
import { GraphBuilder } from "#rwkv/graph/graph-builder";
import { eluPlusOne, multiply } from "#rwkv/graph/operations/elementwise";
import { constant } from "#rwkv/graph/operations/leaves";
import { attention } from "#rwkv/lab/operations/attention";
import { attentionFree } from "#rwkv/lab/operations/attention-free";
import { elman } from "#rwkv/lab/operations/elman";
import { gru } from "#rwkv/lab/operations/gru";
import { linearAttention } from "#rwkv/lab/operations/linear-attention";
import { addPosition } from "#rwkv/lab/operations/position";
import { trainableModel } from "#rwkv/training/trainable-model";
import { allKernels, maxDifference, relativeError, trainers } from "./environment.js";
import { fixture, readJson } from "./fixture-files.js";

const { rows, losses } = readJson<{ rows: number[][]; losses: Record<string, number> }>(fixture("operations.json"));
const [width, heads, capacity, vocabulary] = [15, 3, 80, 11];

type Build = (g: GraphBuilder, x: RowNode) => RowNode;
const product = (g: GraphBuilder, name: string, x: RowNode) => g.matmul(g.matrix(name, width, width), x);
const aft =
  (rowsOfBias: number, window: number, headsOfBias: number, factor = 1): Build =>
  (g, x) => {
    const key = multiply(product(g, "key", x), constant(factor));
    return attentionFree(g, { key, value: x }, g.matrix("bias", rowsOfBias, window), headsOfBias);
  };

const operations: Record<string, Build> = {
  addPosition: (g, x) => addPosition(g, x, g.matrix("places", capacity, width)),
  attention: (g, x) =>
    attention(g, { query: product(g, "query", x), key: product(g, "key", x), value: x }, heads, capacity),
  linearAttention: (g, x) => {
    const feature = (name: string) => eluPlusOne(product(g, name, x));
    return linearAttention(g, { query: feature("query"), key: feature("key"), value: x }, heads);
  },
  "aft-full": aft(capacity, capacity, 0),
  "aft-full, keys far apart": aft(capacity, capacity, 0, 60),
  "aft-local": aft(capacity, 9, 0),
  "aft-conv": aft(heads, 33, heads),
  "aft-simple": aft(heads, 1, heads),
  elman: (g, x) => elman(g, x, g.matrix("recurrent", width, width)),
  gru: (g, x) => {
    const input = (gate: string) => product(g, `${gate}_input`, x);
    const recurrent = (gate: string) => g.matrix(`${gate}_recurrent`, width, width);
    return gru(g, {
      update: input("update"),
      reset: input("reset"),
      candidate: input("candidate"),
      updateWeight: recurrent("update"),
      resetWeight: recurrent("reset"),
      candidateWeight: recurrent("candidate"),
    });
  },
};

let figures: Checkpoint;
beforeAll(async () => {
  figures = await openCheckpoint(fixture("operations.safetensors"));
});
afterAll(() => figures.close());

describe.each(Object.entries(operations))("%s", (operation, build) => {
  const g = new GraphBuilder();
  const mixed = build(g, g.embedding(g.matrix("table", vocabulary, width)));
  const graph = g.finish(g.selectRows(g.matmul(g.matrix("head", vocabulary, width), mixed)));
  const of = (name: string) => figures.tensors.get(`${operation}/${name}`) as StoredTensor;
  const tensors = () => new Map(graph.weights.map(({ name }) => [name, of(name)]));

  test("gives the logits", async () => {
    const tokens = rows[0]!.slice(0, -1);
    const expected = await readFloat32(of("logits"));
    const model = { version: "test", size: { layers: 1, width, hidden: width, vocabulary }, graph, tensors: tensors() };
    for (const { backend, threads, label } of [
      { backend: referenceBackend, threads: 1, label: "plain" },
      ...allKernels,
    ]) {
      const runtime = await backend.open(model, { threads });
      for (const part of [1, 31, 37, 69]) {
        const state = runtime.createState();
        const logits: number[] = [];
        for (let at = 0; at < tokens.length; at += part) {
          const result = await runtime.run([{ state, tokens: tokens.slice(at, at + part), logits: "all" }]);
          logits.push(...result.logits);
        }
        expect(maxDifference(logits, expected), `${label}, parts of ${part}`).toBeLessThan(5e-6);
      }
      await runtime.dispose();
    }
  });

  test("gives the gradients", async () => {
    const model = trainableModel(graph, tensors(), { weights: graph.weights, logitPenalty: 0 });
    for (const { label, open, threads } of [{ label: "plain", open: openReferenceTraining, threads: 1 }, ...trainers]) {
      const runtime = await open(model, { threads, maxTokens: 128, maxSegments: 4 });
      const segments = rows.map((row) => {
        const [state, nextState] = [runtime.createState(), runtime.createState()];
        return { state, nextState, tokens: row.slice(0, -1), targets: row.slice(1) };
      });
      const still = { step: 1, learningRate: 0, beta1: 0, beta2: 0, epsilon: 1, weightDecay: 0, maxGradientNorm: 1 };
      const { losses: found } = await runtime.step(segments, still, 0);
      const mean = found.reduce((sum, loss) => sum + loss, 0) / found.length;
      expect(Math.abs(mean / losses[operation]! - 1), label).toBeLessThan(2e-6);
      for (const { name, gradient } of runtime.parameters) {
        const exact = await readFloat32(of(`${name}.gradient`));
        expect(relativeError(gradient, exact), `${name} on ${label}`).toBeLessThan(2e-5);
      }
      await runtime.dispose();
    }
  });
});
