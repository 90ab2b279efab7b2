// Training RWKV-7: first values and learning of RWKV-LM's recipe, and a run, its LoRA and its state from text to a model that is loaded.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { load, type Model, openCheckpoint, readFloat32, type State } from "rwkv";
import { type TrainOptions, train } from "rwkv/training";
import { describe, expect, test } from "vitest";
import { rwkv7 } from "#rwkv/models/rwkv7";
import { randomGenerator } from "#rwkv/sampling/random";
import { firstTensors } from "#rwkv/training/initialize";
import { maxDifference, temporaryFolder } from "./fixture-files.js";

const size = rwkv7.newSize({ layers: 3, width: 128, vocabulary: 300 });
const graph = rwkv7.build(size, { layerNormEpsilon: 1e-5 });

describe("first values", () => {
  const tensors = firstTensors(rwkv7, graph, { size, embeddingRange: 0.01, random: randomGenerator(1) });
  const values = (name: string) => readFloat32(tensors.get(name)!);

  test("of every name and shape", () => {
    expect([...tensors.keys()]).toEqual(graph.weights.map(({ name }) => name));
    for (const { name, shape } of graph.weights) expect(tensors.get(name)!.shape).toEqual(shape);
  });

  // In the middle one of three layers, whose depth is 1/2 and whose share of layers still to come 2/3; channel 32 of 128.
  test.each([
    ["att.x_r", 1 - 0.25 ** (0.2 * (2 / 3))],
    ["att.x_w", 1 - 0.25 ** (0.9 * (2 / 3))],
    ["att.x_k", 1 - 0.25 ** (0.7 * (2 / 3))],
    ["att.x_v", 1 - 0.25 ** (0.7 * (2 / 3))],
    ["att.x_a", 1 - 0.25 ** (0.9 * (2 / 3))],
    ["att.x_g", 1 - 0.25 ** (0.2 * (2 / 3))],
    ["ffn.x_k", 1 - 0.25 ** ((2 / 3) ** 4)],
    ["att.w0", -6 + 6 * (32 / 127) ** (1 + 0.5 ** 0.3) + 0.5 + 2.5 * (0.5 / 31.5) ** 2],
    ["att.a0", -0.19 + 0.3 * (0.5 / 31.5) ** 2 + 0.4 * (32 / 127 - 0.5)],
    ["att.v0", 0.73 - 0.4 * (32 / 127 - 0.5)],
    ["att.k_k", 0.71 - 0.1 * (32 / 127 - 0.5)],
    ["att.k_a", 1.02],
    ["att.r_k", -0.04],
    ["att.ln_x.weight", (2 / 3) ** 0.7],
    ["ln1.weight", 1],
    ["ln2.bias", 0],
  ])("%s", async (name, expected) => {
    expect((await values(`blocks.1.${name}`))[32]).toBeCloseTo(expected, 6);
  });

  test("what a layer adds, and the first of two small matrices, is nothing; embeddings are small", async () => {
    for (const name of ["att.output.weight", "ffn.value.weight", "att.w1", "att.a1", "att.v1", "att.g1"]) {
      expect(Math.max(...(await values(`blocks.2.${name}`)).map(Math.abs)), name).toBe(0);
    }
    const largest = Math.max(...(await values("emb.weight")).map(Math.abs));
    expect(largest).toBeLessThanOrEqual(1e-4);
    expect(largest).toBeGreaterThan(9e-5);
  });

  test.each([
    ["blocks.0.att.receptance.weight", 1],
    ["blocks.0.att.key.weight", 0.1],
    ["blocks.0.ffn.key.weight", 1],
    ["blocks.0.att.w2", 0.1],
    ["blocks.0.att.g2", 0.1],
    ["head.weight", 0.5 * Math.sqrt(300 / 128)],
  ])("%s has orthogonal rows or columns of length %d", async (name, length) => {
    const [rows, columns] = tensors.get(name)!.shape as [number, number];
    const matrix = await values(name);
    const isWide = columns >= rows;
    const dot = (a: number, b: number) => {
      let sum = 0;
      for (let i = 0; i < Math.max(rows, columns); i++) {
        sum += isWide
          ? matrix[a * columns + i]! * matrix[b * columns + i]!
          : matrix[i * columns + a]! * matrix[i * columns + b]!;
      }
      return sum;
    };
    expect(dot(0, 0)).toBeCloseTo(length ** 2, 4);
    expect(dot(3, 3)).toBeCloseTo(length ** 2, 4);
    expect(dot(1, 3)).toBeCloseTo(0, 5);
  });

  test("ranks are RWKV-LM's for its widths", () => {
    const ranks = (width: number) => {
      const { decayRank, learningRateRank, valueRank, gateRank } = rwkv7.newSize({
        layers: 12,
        width,
        vocabulary: 65536,
      });
      return [decayRank, learningRateRank, valueRank, gateRank];
    };
    expect(ranks(768)).toEqual([64, 64, 32, 128]);
    expect(ranks(1024)).toEqual([64, 64, 64, 160]);
    expect(ranks(2048)).toEqual([128, 128, 64, 224]);
  });
});

test("w0 learns twice as fast, and matrices decay that RWKV-LM calls weights", () => {
  const of = (choose: (learning: ReturnType<typeof rwkv7.training.learning>) => boolean) =>
    graph.weights
      .filter((weight) => choose(rwkv7.training.learning(weight)))
      .map(({ name }) => name.replace(/^blocks\.\d\./, ""));
  expect(new Set(of(({ rateFactor }) => rateFactor !== 1))).toEqual(new Set(["att.w0"]));
  expect(new Set(of(({ decays }) => decays))).toEqual(
    new Set([
      ...["emb.weight", "head.weight", "ffn.key.weight", "ffn.value.weight"],
      ...["receptance", "key", "value", "output"].map((name) => `att.${name}.weight`),
    ]),
  );
  expect(rwkv7.training.adamEpsilon).toBe(1e-18);
});

test("a run, its tensors, LoRA and a tuned state", async () => {
  const folder = await temporaryFolder();
  const data = join(folder, "tale.txt");
  await writeFile(data, "The fox saw a king, and then went home. ".repeat(200));
  const common: Omit<TrainOptions, "out"> = { data, context: 40, batch: 4, steps: 30, learningRate: 1e-2, threads: 2 };
  const losses: number[] = [];
  const base = join(folder, "base");
  await train({
    ...common,
    version: "7",
    out: base,
    tokenizer: "bytes",
    layers: 2,
    width: 32,
    onStep: ({ loss }) => void losses.push(loss),
  });
  expect(losses.at(-1)).toBeLessThan(0.6 * losses[0]!);

  const checkpoint = await openCheckpoint(base);
  expect(checkpoint.tensors.get("blocks.1.att.w1")!.shape).toEqual([32, 32]);
  expect(checkpoint.tensors.get("blocks.1.att.g2")!.shape).toEqual([32, 32]);
  expect(checkpoint.tensors.get("blocks.1.att.x_r")!.shape).toEqual([1, 1, 32]);
  expect(checkpoint.tensors.get("blocks.1.att.r_k")!.shape).toEqual([1, 32]);
  expect(checkpoint.tensors.has("blocks.0.att.v1")).toBe(false);
  await checkpoint.close();

  for (const backend of ["native", "reference"] as const) {
    const model = await load(base, { backend });
    expect(model.info).toMatchObject({ version: "7", layers: 2, width: 32, hidden: 128 });
    await model.dispose();
  }
  const first = (options: Partial<TrainOptions>) =>
    train({ ...common, steps: 6, from: base, ...options } as TrainOptions);
  await first({ out: join(folder, "lora"), lora: { rank: 2 } });
  await first({ out: join(folder, "state"), tuneState: true });
  const [before, after] = [await load(base), await load(join(folder, "lora"))];
  const logitsOf = async (model: Model, state: State = model.createState()) =>
    (await model.forward([{ state, tokens: model.tokenizer.encode("The f") }]))[0]!;
  const plain = await logitsOf(before);
  expect(maxDifference(await logitsOf(after), plain)).toBeGreaterThan(1e-3);
  const tuned = before.createState(await before.readState(join(folder, "state", "state.rwkv")));
  // Of each layer: what time mixing mixes the first token with, a matrix of one head, and what channel mixing does.
  const parts = [32, 32 ** 2, 32];
  const values = await tuned.values();
  for (let layer = 0, at = 0; layer < 2; layer++) {
    for (const size of parts) {
      expect(values.slice(at, at + size).some((value) => value !== 0)).toBe(true);
      at += size;
    }
  }
  expect(maxDifference(await logitsOf(before, tuned), plain)).toBeGreaterThan(1e-3);
  for (const model of [before, after]) await model.dispose();
});

test("an unknown version, and a width that heads do not divide, are refused", async () => {
  await expect(train({ data: "x", out: "y", version: "3" })).rejects.toThrow(/option version: expected 4 or .* or 7/);
  await expect(train({ data: "x", out: "y", version: "7", width: 30 })).rejects.toThrow(
    "option width: expected a multiple of 8",
  );
});
