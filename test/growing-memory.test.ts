// Memory of WebAssembly that is not shared moves each time it grows. Models large enough to make it grow many times, in Node and
// in pages, isolated or not.

import { expect, test } from "vitest";
import { openKernelRuntime } from "#rwkv/backends/kernel/kernel-runtime";
import { openKernelTraining } from "#rwkv/backends/kernel/kernel-training";
import { referenceBackend } from "#rwkv/backends/reference/reference";
import { openReferenceTraining } from "#rwkv/backends/reference/reference-training";
import type { TrainingRuntime } from "#rwkv/backends/training";
import { createWasmMachine } from "#rwkv/backends/wasm/wasm";
import { bindModel } from "#rwkv/models/versions";
import { trainableModel } from "#rwkv/training/trainable-model";
import { maxDifference } from "./environment.js";
import { syntheticRwkv4 } from "./synthetic-rwkv4.js";

const sizes = [
  { layers: 24, width: 64, hidden: 256, vocabulary: 100 },
  { layers: 12, width: 512, hidden: 2048, vocabulary: 500 },
];
const tokens = [1, 99, 3, 3, 42];

async function openSingleThread(size: (typeof sizes)[number]) {
  const model = bindModel(syntheticRwkv4(size, "bf16"));
  return { model, runtime: await openKernelRuntime(await createWasmMachine(1, false), model, { threads: 1 }) };
}

test.each(sizes)("$layers layers of $width: loads and computes what the reference computes", async (size) => {
  const { model, runtime } = await openSingleThread(size);
  const reference = await referenceBackend.open(model, { threads: 1 });
  const [found, exact] = await Promise.all(
    [runtime, reference].map(async (each) => {
      const { logits } = await each.run([{ state: each.createState(), tokens, logits: "all" }]);
      return logits.slice();
    }),
  );
  expect(found).toHaveLength(tokens.length * size.vocabulary);
  expect(maxDifference(found!, exact!)).toBeLessThan(1e-3);
  await runtime.dispose();
});

test("what a pass gave can be read after the memory has moved", async () => {
  const { runtime } = await openSingleThread(sizes[0]!);
  const state = runtime.createState();
  const result = await runtime.run([{ state, tokens, logits: "last" }]);
  const before = result.logits.slice();
  const states = Array.from({ length: 500 }, () => runtime.createState());
  expect(result.logits).toEqual(before);
  const values = await Promise.all(states.map((other) => runtime.readState(other)));
  expect(values.every(({ length }) => length === runtime.stateLength)).toBe(true);
  const again = await runtime.run([{ state: states[499]!, tokens, logits: "last" }]);
  expect(again.logits).toEqual(before);
  expect(await runtime.readState(states[499]!)).toEqual(await runtime.readState(state));
  await runtime.dispose();
});

test("a choice with more adjustments than there was memory for", async () => {
  const { runtime } = await openSingleThread({ ...sizes[0]!, vocabulary: 20_000 });
  const all = Array.from({ length: 19_999 }, (_, token) => token);
  const choice = {
    temperature: 1,
    topP: 1,
    topK: 20_000,
    minP: 0,
    uniform: 0.5,
    adjustments: { tokens: all, amounts: all.map(() => -1000) },
  };
  const result = await runtime.run([{ state: runtime.createState(), tokens, logits: "last", choice }]);
  expect(result.tokens).toEqual([19_999]);
  await runtime.dispose();
});

test("a model of 24 layers is trained while states are created in between", async () => {
  const { graph, tensors } = bindModel(syntheticRwkv4(sizes[0]!, "f32"));
  const model = trainableModel(graph, tensors, { weights: graph.weights, logitPenalty: 0 });
  const options = { threads: 1, maxTokens: 16, maxSegments: 2 };
  const betas = { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 };
  const settings = { ...betas, learningRate: 1e-2, weightDecay: 0, maxGradientNorm: 1 };
  const lossesOf = async (runtime: TrainingRuntime) => {
    const losses: number[] = [];
    for (let step = 1; step <= 3; step++) {
      const [state, nextState] = Array.from({ length: 100 }, () => runtime.createState());
      const segment = { state: state!, nextState: nextState!, tokens, targets: [...tokens.slice(1), 7] };
      losses.push(...(await runtime.step([segment], { ...settings, step }, step)).losses);
    }
    await runtime.dispose();
    return losses;
  };
  const found = await lossesOf(await openKernelTraining(await createWasmMachine(1, false, "training"), model, options));
  const expected = await lossesOf(await openReferenceTraining(model, options));
  expect(found).toHaveLength(3 * tokens.length);
  expect(maxDifference(found, expected)).toBeLessThan(1e-3);
});
