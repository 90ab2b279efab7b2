// Gradients of whole models against those of PyTorch's automatic differentiation.

import { type Checkpoint, openCheckpoint, readFloat32 } from "rwkv";
import { describe, expect, test } from "vitest";
import { openReferenceTraining } from "#rwkv/backends/reference/reference-training";
import type { OpenTraining } from "#rwkv/backends/training";
import { bindModel } from "#rwkv/models/versions";
import { trainableModel } from "#rwkv/training/trainable-model";
import { relativeError, trainers } from "./environment.js";
import { fixture, hasSharedData, readJson, sharedData } from "./fixture-files.js";

if (!hasSharedData) console.info("skipped: no data folder beside the checkout, so no larger reference gradients");

interface Expected {
  rows: number[][];
  loss: number;
  logitPenalty: number;
}

const everyone: readonly { label: string; open: OpenTraining; threads: number; tolerance: number }[] = [
  { label: "reference", open: (model, options) => openReferenceTraining(model, options), threads: 1, tolerance: 1e-4 },
  ...trainers.map((trainer) => ({ ...trainer, tolerance: 1e-3 })),
];

/** Relative error of each tensor's gradient, as a whole. */
async function errors(path: string, gradients: Checkpoint, expected: Expected, open: OpenTraining, threads: number) {
  const checkpoint = await openCheckpoint(path);
  const { graph, tensors } = bindModel(checkpoint);
  const model = trainableModel(graph, tensors, { weights: graph.weights, logitPenalty: expected.logitPenalty });
  const runtime = await open(model, { threads, maxTokens: 128, maxSegments: 4 });
  const segments = expected.rows.map((row) => ({
    state: runtime.createState(),
    nextState: runtime.createState(),
    tokens: row.slice(0, -1),
    targets: row.slice(1),
  }));
  const settings = { step: 1, learningRate: 0, beta1: 0, beta2: 0, epsilon: 1, weightDecay: 0, maxGradientNorm: 1 };
  const { losses } = await runtime.step(segments, settings, 0);
  const found = new Map<string, number>();
  for (const { name, gradient } of runtime.parameters) {
    found.set(name, relativeError(gradient, await readFloat32(gradients.tensors.get(name)!)));
  }
  await runtime.dispose();
  await checkpoint.close();
  return { found, loss: losses.reduce((sum, value) => sum + value, 0) / losses.length };
}

async function compare(path: string, gradientsPath: string, expected: Expected) {
  const gradients = await openCheckpoint(gradientsPath);
  for (const { label, open, threads, tolerance } of everyone) {
    const { found, loss } = await errors(path, gradients, expected, open, threads);
    expect(Math.abs(loss / expected.loss - 1), label).toBeLessThan(1e-5);
    expect([...found.keys()].sort()).toEqual([...gradients.tensors.keys()].sort());
    for (const [name, error] of found) expect(error, `${name} on ${label}`).toBeLessThan(tolerance);
  }
  await gradients.close();
}

test.each(["odd", "extreme-keys"])("%s", async (name) => {
  const expected = readJson<Expected>(fixture(`${name}.gradients.json`));
  await compare(fixture(`${name}.pth`), fixture(`${name}.gradients.pth`), expected);
});

describe.skipIf(!hasSharedData)("reference data", () => {
  test("synthetic-rwkv4-3x64", async () => {
    const golden = readJson<{ tokens: number[][]; loss: number }>(sharedData("golden/synthetic-rwkv4-3x64.grads.json"));
    await compare(sharedData("models/synthetic-rwkv4-3x64.pth"), sharedData("golden/synthetic-rwkv4-3x64.grads.pth"), {
      rows: golden.tokens,
      loss: golden.loss,
      logitPenalty: 0,
    });
  });
});
