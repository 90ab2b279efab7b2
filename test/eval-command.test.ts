// rwkv eval: tests of language models, against what plain passes of the reference give.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { load, type Model, writeSafetensors } from "rwkv";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { syntheticCheckpoint } from "#rwkv/bench/synthetic-checkpoint";
import { definitions } from "#rwkv/models/definitions";
import { rwkv } from "./command.js";
import { temporaryFolder } from "./fixture-files.js";

let reference: Model;
beforeAll(async () => {
  reference = await load(undefined, { backend: "reference" });
});
afterAll(() => reference.dispose());

/** Writes records a line each. */
async function written(name: string, records: readonly unknown[]): Promise<string> {
  const path = join(await temporaryFolder(), name);
  await writeFile(path, records.map((record) => `${JSON.stringify(record)}\n`).join("\n"));
  return path;
}

/** The log-probability of a continuation, and whether it is what the model would write, by one pass over all tokens. */
async function scored(model: Model, begin: number[], context: string, continuation: string) {
  const before = [...begin, ...model.tokenizer.encode(context)];
  const after = model.tokenizer.encode(continuation);
  const [logits] = await model.forward([
    { state: model.createState(), tokens: [...before, ...after].slice(0, -1), logits: "all" },
  ]);
  const { vocabulary } = model.info;
  let [sum, isFirst] = [0, true];
  for (const [i, token] of after.entries()) {
    const at = (before.length - 1 + i) * vocabulary;
    const row = Array.from(logits!.subarray(at, at + vocabulary));
    sum += row[token]! - Math.log(row.reduce((all, logit) => all + Math.exp(logit), 0));
    isFirst &&= row.indexOf(Math.max(...row)) === token;
  }
  return { sum, isFirst };
}

const tales = [
  ["Once upon a time there was a king who had three", " daughters"],
  ["Then the king said to the old", " woman"],
  ["And if they have not died, they are living still to this", " day"],
  ["The fox and the", " horse"],
  ["She went into the wood, and there she met a", " quadrilateral."],
] as const;

describe("lambada", () => {
  test("the last word of each passage", async () => {
    const begin = reference.tokenizer.encode("\n");
    const expected = await Promise.all(tales.map(([context, word]) => scored(reference, begin, context, word)));
    const path = await written(
      "passages.jsonl",
      tales.map(([context, word]) => ({ text: context + word })),
    );
    const { stdout } = await rwkv(["eval", "lambada", path, "--json"]);
    const found = JSON.parse(stdout);
    const nats = expected.reduce((all, { sum }) => all - sum, 0) / tales.length;
    const right = expected.filter(({ isFirst }) => isFirst).length;
    expect(right).toBeGreaterThan(0);
    expect(right).toBeLessThan(tales.length);
    expect(found.passages).toBe(tales.length);
    expect(Math.log(found.perplexity)).toBeCloseTo(nats, 4);
    expect(found.accuracy).toBe(right / tales.length);
    const first = await rwkv(["eval", "lambada", path, "--limit", "1"]);
    expect(first.stdout).toMatch(/^passages {4}1\nperplexity {2}[\d.]+\naccuracy {4}(100|0)\.00 %\n$/);
  });

  test("before each passage stands what ends a text in RWKV World", async () => {
    const path = join(await temporaryFolder(), "world.safetensors");
    const definition = definitions.find(({ version }) => version === "7")!;
    const size = definition.newSize({ layers: 1, width: 64, vocabulary: 65_536 });
    const checkpoint = syntheticCheckpoint({ name: "world", definition, size }, "f32");
    const tensors = await Promise.all(
      [...checkpoint.tensors.values()].map(async ({ name, dtype, shape, source }) => {
        const bytes = new Uint8Array(4 * shape.reduce((product, length) => product * length, 1));
        await source.readInto(0, bytes);
        return { name, dtype, shape, bytes: () => [bytes] };
      }),
    );
    await writeSafetensors(path, tensors);
    const model = await load(path, { backend: "reference" });
    const expected = await scored(model, [0], "The king gave it to the old", " woman");
    await model.dispose();
    const passages = await written("world.jsonl", [{ text: "The king gave it to the old woman" }]);
    const { stdout } = await rwkv(["eval", "lambada", passages, "--model", path, "--dtype", "f32", "--json"]);
    expect(Math.log(JSON.parse(stdout).perplexity)).toBeCloseTo(-expected.sum, 4);
  });
});

describe("choices", () => {
  test("the most probable, as it is and for each byte", async () => {
    const begin = reference.tokenizer.encode("\n");
    const questions = [
      { context: "Once upon a time there was a king who had three", choices: [" daughters", " x"], answer: 0 },
      { context: "The fox said to the", choices: [" wolf", " old woman, who was sitting by the fire"], answer: 1 },
      { context: "She lived in a", choices: [" 7", " house"], answer: 0 },
    ];
    let [right, rightForBytes] = [0, 0];
    for (const { context, choices, answer } of questions) {
      const sums = await Promise.all(choices.map(async (text) => (await scored(reference, begin, context, text)).sum));
      const means = sums.map((sum, i) => sum / choices[i]!.length);
      if (sums.indexOf(Math.max(...sums)) === answer) right++;
      if (means.indexOf(Math.max(...means)) === answer) rightForBytes++;
    }
    const { stdout } = await rwkv(["eval", "choices", await written("questions.jsonl", questions), "--json"]);
    expect(right).not.toBe(rightForBytes);
    expect(JSON.parse(stdout)).toEqual({
      questions: questions.length,
      accuracy: right / questions.length,
      normalizedAccuracy: rightForBytes / questions.length,
    });
  });
});

test.each([
  ["lambada", "nonsense", 'line 1: expected a JSON object, found "nonsense"'],
  ["lambada", "", "expected a JSON object a line, found none"],
  ["lambada", '{"text": "a b"}\n[7]', 'line 2: expected a JSON object, found "[7]"'],
  ["lambada", '{"text": 7}', 'line 1: field "text": expected a text that is not empty'],
  ["lambada", '{"text": "word"}', 'line 1: field "text": expected several words, with spaces between them'],
  ["lambada", '{"text": "a word "}', 'line 1: field "text": expected several words, with spaces between them'],
  ["choices", '{"context": "a"}', 'line 1: field "choices": expected two texts or more, none of them empty'],
  ["choices", '{"context": "a", "choices": ["b", ""], "answer": 0}', 'field "choices": expected two texts or more'],
  ["choices", '{"context": "a", "choices": ["b", "c"], "answer": 2}', 'field "answer": expected a number from 0 to 1'],
  ["choices", '{"context": "", "choices": ["b", "c"], "answer": 1}', 'field "context": expected a text'],
])("%s refuses %j", async (task, content, message) => {
  const path = join(await temporaryFolder(), "wrong.jsonl");
  await writeFile(path, content);
  const { code, stdout, stderr } = await rwkv(["eval", task, path]);
  expect([code, stdout]).toEqual([1, ""]);
  expect(stderr).toContain(`error: ${path}`);
  expect(stderr).toContain(message);
});
