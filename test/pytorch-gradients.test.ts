// Gradients of whole models against those of PyTorch's automatic differentiation.

import { openCheckpoint, readFloat32 } from "rwkv";
import { describe, expect, test } from "vitest";
import { openReferenceTraining } from "#rwkv/backends/reference/reference-training";
import type { OpenTraining } from "#rwkv/backends/training";
import { type BoundModel, bindModel } from "#rwkv/models/versions";
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

/** Relative error of each weight's gradient, as a whole. A file of gradients has them where the weights are in the model's. */
async function errors(
  path: string,
  exact: BoundModel["tensors"],
  expected: Expected,
  open: OpenTraining,
  threads: number,
) {
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
    found.set(name, relativeError(gradient, await readFloat32(exact.get(name)!)));
  }
  await runtime.dispose();
  await checkpoint.close();
  return { found, loss: losses.reduce((sum, value) => sum + value, 0) / losses.length };
}

async function compare(path: string, gradientsPath: string, expected: Expected) {
  const gradients = await openCheckpoint(gradientsPath);
  const exact = bindModel(gradients).tensors;
  for (const { label, open, threads, tolerance } of everyone) {
    const { found, loss } = await errors(path, exact, expected, open, threads);
    expect(Math.abs(loss / expected.loss - 1), label).toBeLessThan(1e-5);
    expect([...found.keys()].sort()).toEqual([...exact.keys()].sort());
    for (const [name, error] of found) expect(error, `${name} on ${label}`).toBeLessThan(tolerance);
  }
  await gradients.close();
}

test("rwkv7, over more tokens than lie between two matrices that are kept", async () => {
  const expected = { ...readJson<Omit<Expected, "logitPenalty">>(fixture("rwkv7.json")), logitPenalty: 0 };
  expect(Math.max(...expected.rows.map((row) => row.length))).toBeGreaterThan(2 * 16);
  await compare(fixture("rwkv7.pth"), fixture("rwkv7.gradients.pth"), expected);
});

test.each(["odd", "extreme-keys", "rwkv5.0", "rwkv5.1", "rwkv5.2", "rwkv6"])("%s", async (name) => {
  const expected = readJson<Expected>(fixture(`${name}.gradients.json`));
  await compare(fixture(`${name}.pth`), fixture(`${name}.gradients.pth`), expected);
});

describe.skipIf(!hasSharedData)("reference data", () => {
  test.each(["synthetic-rwkv4-3x64", "synthetic-rwkv7"])("%s", async (name) => {
    const golden = readJson<{ tokens: number[][]; loss: number }>(sharedData(`golden/${name}.grads.json`));
    await compare(sharedData(`models/${name}.pth`), sharedData(`golden/${name}.grads.pth`), {
      rows: golden.tokens,
      loss: golden.loss,
      logitPenalty: 0,
    });
  });
});
