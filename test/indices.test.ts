// Indices that reach the kernels are checked there: a wrong one ends the pass with an error before anything is computed.

import { RwkvError } from "rwkv";
import { describe, expect, test } from "vitest";
import type { PassSegment } from "#rwkv/backends/backend";
import { GraphBuilder } from "#rwkv/graph/graph-builder";
import type { BoundModel } from "#rwkv/models/versions";
import { storedTensor } from "#rwkv/training/initialize";
import { trainableModel } from "#rwkv/training/trainable-model";
import { kernels, trainers } from "./environment.js";

const [vocabulary, width, outputs] = [5, 8, 7];

/** An embedding, a token shift with a state, and a head. */
function smallModel(): BoundModel {
  const g = new GraphBuilder();
  const x = g.embedding(g.matrix("table", vocabulary, width));
  const [mixed] = g.tokenShift(x, g.state(width, 0), [g.vector("factor", width)]);
  const graph = g.finish(g.matmul(g.matrix("head", outputs, width), g.selectRows(mixed)));
  const values = (count: number) => Float32Array.from({ length: count }, (_, i) => Math.sin(i));
  const tensors = new Map(
    graph.weights.map(({ name, shape }) => {
      const size = shape.reduce((product, dimension) => product * dimension, 1);
      return [name, storedTensor(name, shape, values(size))];
    }),
  );
  const size = { layers: 1, width, hidden: 0, vocabulary: outputs };
  return { version: "test", size, graph, tensors };
}

const choice = { temperature: 1, topP: 1, topK: 0, minP: 0, uniform: 0.5 };
const wrongTokens = [vocabulary, -1, 2 ** 30, -(2 ** 31), 2 ** 31 - 1];

describe.each(kernels)("$label", ({ backend, threads }) => {
  test("refuses indices outside what they point into, and computes nothing", async () => {
    const runtime = await backend.open(smallModel(), { threads });
    const state = runtime.createState();
    const run = async (segment: Omit<PassSegment, "state">) => runtime.run([{ state, ...segment }]);
    await run({ tokens: [1, 2], logits: "last" });
    const before = await runtime.readState(state);
    for (const wrong of wrongTokens) {
      const error = await run({ tokens: [1, wrong], logits: "last" }).catch((error) => error);
      expect(error).toBeInstanceOf(RwkvError);
      expect(error.message).toContain("a token id is outside the vocabulary");
    }
    for (const wrong of [outputs, -1, 2 ** 30, -(2 ** 31)]) {
      const adjustments = { tokens: [0, wrong], amounts: [1, 1] };
      const refused = run({ tokens: [1], logits: "last", choice: { ...choice, adjustments } });
      await expect(refused).rejects.toThrow("a token whose logit is adjusted is outside the vocabulary");
    }
    await expect(run({ tokens: [], logits: "last" })).rejects.toThrow("a row whose logits are wanted is outside");
    expect(await runtime.readState(state)).toEqual(before);
    // What is right goes on as if nothing had been.
    const fresh = runtime.createState();
    const expected = (await runtime.run([{ state: fresh, tokens: [1, 2, 3], logits: "last" }])).logits.slice();
    expect((await run({ tokens: [3], logits: "last" })).logits.slice()).toEqual(expected);
    await runtime.dispose();
  });
});

describe.each(trainers)("training: $label", ({ open, threads }) => {
  test("refuses tokens and targets outside the vocabulary", async () => {
    const { graph, tensors } = smallModel();
    const states = new Map();
    const model = trainableModel(graph, tensors, { weights: graph.weights, states, logitPenalty: 0 });
    const runtime = await open(model, { threads, maxTokens: 16, maxSegments: 2 });
    const [state, nextState] = [runtime.createState(), runtime.createState()];
    const evaluate = (tokens: number[], targets: number[]) => runtime.evaluate([{ state, nextState, tokens, targets }]);
    for (const wrong of wrongTokens) {
      await expect(evaluate([wrong, 1], [1, 1])).rejects.toThrow("a token id is outside the vocabulary");
    }
    for (const wrong of [outputs, 2 ** 30]) {
      await expect(evaluate([1, 1], [1, wrong])).rejects.toThrow("a target is outside the vocabulary");
    }
    expect((await evaluate([1, 1], [1, outputs - 1])).every(Number.isFinite)).toBe(true);
    await runtime.dispose();
  });
});
