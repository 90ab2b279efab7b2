// The parts of a run: initial weights, learning rates, which tokens a step sees, tokenizers, held-out text.

import fc from "fast-check";
import { readFloat32 } from "rwkv";
import { describe, expect, test } from "vitest";
import { rwkv4 } from "#rwkv/models/rwkv4";
import { randomGenerator } from "#rwkv/sampling/random";
import { byteTokenizer } from "#rwkv/tokenizers/bytes";
import { huggingFaceTokenizer } from "#rwkv/tokenizers/hugging-face";
import { pieceEncoder, trainBytePairEncoding } from "#rwkv/tokenizers/train-bpe";
import { consecutiveBatches, shuffledBatches } from "#rwkv/training/batches";
import { datasetOf } from "#rwkv/training/dataset";
import { type Document, documentOf, holdOut } from "#rwkv/training/document";
import { firstTensors } from "#rwkv/training/initialize";
import { learningRateAt } from "#rwkv/training/schedule";

describe("initial weights", () => {
  const size = { layers: 3, width: 32, hidden: 96, vocabulary: 50 };
  const graph = rwkv4.build(size, { layerNormEpsilon: 1e-5 });
  const { weights } = graph;
  const tensors = firstTensors(rwkv4, graph, { size, embeddingRange: 0.01, random: randomGenerator(1) });
  const values = (name: string) => readFloat32(tensors.get(name)!);

  test("of every name and shape", () => {
    expect([...tensors.keys()]).toEqual(weights.map(({ name }) => name));
    for (const { name, shape } of weights) expect(tensors.get(name)!.shape).toEqual(shape);
  });

  test("decays, bonuses and mixes by channel and layer", async () => {
    const decay = await values("blocks.1.att.time_decay");
    expect(decay[0]).toBe(-5);
    expect(decay[31]).toBe(3);
    expect(decay[7]).toBeCloseTo(-5 + 8 * (7 / 31) ** (0.7 + 1.3 * 0.5), 5);
    const first = await values("blocks.0.att.time_first");
    expect([...first.slice(0, 3)].map((x) => x - Math.log(0.3))).toEqual(
      [0, 0.5, -0.5].map((x) => expect.closeTo(x, 6)),
    );
    // In the middle one of three layers x^(2/3) with x the channel's share of the width.
    expect((await values("blocks.1.att.time_mix_k"))[8]).toBeCloseTo(0.25 ** (2 / 3), 6);
    expect((await values("blocks.1.att.time_mix_v"))[8]).toBeCloseTo(0.25 ** (2 / 3) + 0.15, 6);
    expect((await values("blocks.1.att.time_mix_r"))[8]).toBeCloseTo(0.25 ** (1 / 3), 6);
    expect((await values("blocks.1.ffn.time_mix_k"))[8]).toBeCloseTo(0.25 ** (2 / 3), 6);
  });

  test("gates, keys and outputs are zero; the embedding small; norms 1 and 0", async () => {
    for (const name of ["att.key", "att.receptance", "att.output", "ffn.value", "ffn.receptance"]) {
      expect(Math.max(...(await values(`blocks.2.${name}.weight`)).map(Math.abs)), name).toBe(0);
    }
    const embedding = await values("emb.weight");
    const largest = Math.max(...embedding.map(Math.abs));
    expect(largest).toBeLessThanOrEqual(0.01);
    expect(largest).toBeGreaterThan(0.009);
    expect(new Set(await values("ln_out.weight"))).toEqual(new Set([1]));
    expect(new Set(await values("ln_out.bias"))).toEqual(new Set([0]));
  });

  test.each([
    ["blocks.0.att.value.weight", 32, 32, 1],
    ["blocks.0.ffn.key.weight", 96, 32, Math.sqrt(3)],
    ["head.weight", 50, 32, 0.5 * Math.sqrt(50 / 32)],
  ] as const)("%s is orthogonal", async (name, rows, columns, gain) => {
    const matrix = await values(name);
    for (let a = 0; a < columns; a++) {
      for (let b = a; b < columns; b++) {
        let product = 0;
        for (let r = 0; r < rows; r++) product += matrix[r * columns + a]! * matrix[r * columns + b]!;
        expect(product).toBeCloseTo(a === b ? gain * gain : 0, 5);
      }
    }
  });
});

describe("the learning rate", () => {
  const schedule = { steps: 100, warmup: 10, learningRate: 1e-2, finalLearningRate: 1e-4 };

  test.each(["cosine", "exponential"] as const)("rises, then falls to the end: %s", (decay) => {
    const rates = Array.from({ length: 101 }, (_, step) => learningRateAt(step, { ...schedule, decay }));
    for (let i = 1; i <= 10; i++) expect(rates[i]).toBeGreaterThan(rates[i - 1]!);
    for (let i = 11; i <= 100; i++) expect(rates[i]).toBeLessThan(rates[i - 1]!);
    expect(rates[10]).toBeCloseTo(1e-2, 10);
    expect(rates[100]).toBeCloseTo(1e-4, 10);
    expect(rates[55]).toBeCloseTo(decay === "cosine" ? (1e-2 + 1e-4) / 2 : 1e-3, 8);
  });
});

describe("the tokens of steps", () => {
  const shapes = fc.record({
    count: fc.integer({ min: 2, max: 400 }),
    batch: fc.integer({ min: 1, max: 5 }),
    length: fc.integer({ min: 1, max: 20 }),
    seed: fc.nat(1000),
  });

  test("shuffled: targets follow tokens, and an epoch sees no token twice", () => {
    fc.assert(
      fc.property(shapes, ({ count, batch, length, seed }) => {
        fc.pre(count > length);
        const tokens = Int32Array.from({ length: count }, (_, i) => i);
        const batches = shuffledBatches({ tokens }, batch, length, seed);
        for (const epoch of [0, 1]) {
          const seen: number[] = [];
          for (let step = 0; step < batches.stepsPerEpoch; step++) {
            const windows = batches.at(epoch * batches.stepsPerEpoch + step);
            expect(windows.length).toBe(batch);
            for (const window of windows) {
              expect(window.tokens.length).toBe(length);
              expect([...window.targets]).toEqual([...window.tokens].map((token) => token + 1));
              seen.push(...window.tokens);
            }
          }
          // With fewer windows than the batch has rows some must come twice.
          if (Math.floor((count - 1) / length) - 1 >= batch) expect(new Set(seen).size).toBe(seen.length);
        }
      }),
    );
  });

  test("shuffled: a step's tokens do not depend on which steps were asked for before", () => {
    const tokens = Int32Array.from({ length: 500 }, (_, i) => i);
    const make = () => shuffledBatches({ tokens }, 3, 7, 4);
    const walked = make();
    const all = Array.from({ length: 60 }, (_, step) => walked.at(step));
    for (const step of [59, 3, 30]) expect(make().at(step)).toEqual(all[step]);
    expect(all[0]).not.toEqual(all[walked.stepsPerEpoch]);
  });

  test("in order: each row continues where it ended, and restarts with an epoch", () => {
    const tokens = Int32Array.from({ length: 101 }, (_, i) => i);
    const batches = consecutiveBatches({ tokens }, 2, 10);
    expect(batches.stepsPerEpoch).toBe(5);
    for (let step = 0; step < 12; step++) {
      const index = step % 5;
      batches.at(step).forEach((window, row) => {
        expect(window.tokens[0]).toBe(row * 50 + index * 10);
        expect(window.continues).toBe(index > 0);
      });
    }
  });
});

test("in order: too little text for a window in each row is refused", () => {
  expect(consecutiveBatches({ tokens: new Int32Array(21) }, 2, 10).stepsPerEpoch).toBe(1);
  expect(() => consecutiveBatches({ tokens: new Int32Array(20) }, 2, 10)).toThrow(
    /expected at least 21 tokens.*found 20/,
  );
});

describe("a trained tokenizer", () => {
  const text = `${"the cat sat on the mat; the rat sat on the cat. ".repeat(30)}naïve 東京 🦊\n\n  spaces\tand tabs 123 don't`;

  test("merges the most frequent pairs first", () => {
    const json = trainBytePairEncoding(["aab aab aab ab"], 260) as { model: { merges: string[]; vocab: object } };
    // "ab" four times, then " a" and "ab" together.
    expect(json.model.merges[0]).toBe("a b");
    expect(Object.keys(json.model.vocab).length).toBe(260);
  });

  test("gives back every text, by pieces as at once", () => {
    const tokenizer = huggingFaceTokenizer("test", trainBytePairEncoding([text], 300));
    const byPieces = pieceEncoder(tokenizer);
    expect(tokenizer.vocabularySize).toBe(300);
    expect(tokenizer.endOfText).toBe(0);
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: "binary" }), fc.constant(text)), (any) => {
        fc.pre(!/[\ud800-\udfff]/u.test(any)); // no half characters
        const ids = tokenizer.encode(any);
        expect(tokenizer.decode(ids)).toBe(any);
        expect(byPieces(any)).toEqual(ids);
      }),
    );
    const encoded = tokenizer.encode(text);
    expect(encoded.length).toBeLessThan(0.6 * Buffer.byteLength(text));
  });

  test("stops early where there is nothing to merge", () => {
    expect(huggingFaceTokenizer("test", trainBytePairEncoding(["ab"], 1000)).vocabularySize).toBe(258);
  });
});

test("held-out text is the end of each document, or the last documents of many", () => {
  const documents = (count: number) => Array.from({ length: count }, (_, i) => documentOf(`${i}`, `${i} `.repeat(50)));
  const textOf = ({ parts }: Document) => parts.join("");
  const few = holdOut(documents(3), 0.1);
  few.training.forEach((document, i) => {
    const whole = textOf(documents(3)[i]!);
    expect(textOf(document) + textOf(few.validation[i]!)).toBe(whole);
    expect(textOf(document).length).toBe(Math.floor(whole.length * 0.9));
  });
  const many = holdOut(documents(300), 0.1);
  expect([many.training.length, many.validation.length]).toEqual([270, 30]);
  expect(holdOut(documents(3), 0).validation).toEqual([]);
  const pair = holdOut([documentOf("x", "🦊🦊")], 0.25);
  expect(textOf(pair.training[0]!)).toBe("🦊🦊");
  expect(pair.validation).toEqual([]);
});

test("held-out text of documents in parts is cut where that of the whole would be", () => {
  const parts = ["ab", "c🦊", " d", "efg"];
  const text = parts.join("");
  for (let share = 0.01; share <= 0.5; share += 0.01) {
    const [whole, inParts] = [
      { name: "", parts: [text] },
      { name: "", parts },
    ].map((document) => holdOut([document], share));
    for (const side of ["training", "validation"] as const) {
      expect(inParts![side].map((d) => d.parts.join(""))).toEqual(whole![side].map((d) => d.parts.join("")));
    }
  }
});

test("a long text in parts gives the tokens of the whole", () => {
  const words = ["the", "king's", "12", "東京", "🦊", "--", "don't"];
  const gaps = [" ", "\n", "\n\n", "  ", " \t", "\r\n", ""];
  const text = Array.from({ length: 60_000 }, (_, i) => `${words[(i * 5) % 7]}${gaps[(i * i) % 7]}`).join("");
  const { parts } = documentOf("long", text);
  expect(parts.length).toBeGreaterThan(2);
  expect(parts.join("")).toBe(text);
  const json = trainBytePairEncoding([text], 400);
  expect(trainBytePairEncoding(parts, 400)).toEqual(json);
  const encode = pieceEncoder(huggingFaceTokenizer("test", json));
  expect(parts.flatMap((part) => encode(part))).toEqual(encode(text));
});

test("encoding text lets timers have their turn, and ends when it is interrupted", async () => {
  const controller = new AbortController();
  let encoded = 0;
  const encode = (text: string) => {
    encoded++;
    for (const end = performance.now() + 5; performance.now() < end; );
    return [text.length];
  };
  const parts = Array.from({ length: 200 }, (_, i) => `part ${i}`);
  const split = { training: [{ name: "long", parts }], validation: [] };
  setTimeout(() => controller.abort(), 0);
  const result = datasetOf(split, { tokenizer: byteTokenizer(), encode }, 16, controller.signal);
  await expect(result).rejects.toThrow("interrupted");
  expect(encoded).toBeLessThan(200);
});
