// Training in memory, as pages do it: a text goes in, a model comes out that anyone can load.

import { load, openCheckpoint } from "rwkv";
import { type InMemoryProgress, trainInMemory } from "rwkv/training/in-memory";
import { expect, test } from "vitest";

const text = "The cat sat on the mat, and so did the dog. Then the cat went home. ".repeat(120);
const small = { layers: 1, width: 64, vocabulary: 280, context: 32, batch: 4, threads: 1 };

test("a text is learned, and the model is a file that loads and writes words of it", async () => {
  const steps: InMemoryProgress[] = [];
  const trained = await trainInMemory(text, { ...small, seconds: 4, onStep: (progress) => void steps.push(progress) });
  expect(trained.steps).toBe(steps.length);
  expect(steps.at(-1)!.bitsPerByte).toBeLessThan(steps[0]!.bitsPerByte / 2);
  expect(steps.filter(({ validationBitsPerByte }) => validationBitsPerByte !== undefined).length).toBeGreaterThan(2);
  expect(trained.validationBitsPerByte).toBeLessThan(steps[0]!.bitsPerByte / 2);
  expect(JSON.parse(trained.tokenizerJson)).toHaveProperty("model.type", "BPE");
  const checkpoint = await openCheckpoint(trained.pth);
  expect(checkpoint.format).toBe("pth");
  await checkpoint.close();
  const model = await load(trained.pth, { tokenizer: trained.tokenizer });
  expect(model.info).toMatchObject({ version: "7", layers: 1, width: 64, parameters: trained.parameters });
  expect(await model.generate("The cat", { maxTokens: 12, temperature: 0 }).text()).toMatch(/cat|dog|mat|home|sat|the/);
  await model.dispose();
});

test("a signal ends it after the step in progress, with the model as it is", async () => {
  const controller = new AbortController();
  const { signal } = controller;
  const onStep = ({ step }: InMemoryProgress) => {
    if (step === 2) controller.abort();
  };
  const { steps, pth } = await trainInMemory(text, { ...small, seconds: 60, signal, onStep });
  expect(steps).toBe(2);
  expect(pth.length).toBeGreaterThan(1000);
});

test("what cannot be learned from, and wrong options, are errors that say so", async () => {
  await expect(trainInMemory("short", small)).rejects.toThrow("expected at least 33 tokens to train on");
  await expect(trainInMemory(text, { ...small, seconds: 0 })).rejects.toThrow(/seconds.*from 1 to 86400/);
  await expect(trainInMemory(text, { ...small, layers: 1.5 })).rejects.toThrow(/layers.*whole number/);
  await expect(trainInMemory(text, { ...small, width: 100 })).rejects.toThrow(/width/);
  await expect(trainInMemory(undefined as unknown as string)).rejects.toThrow(/text/);
});
