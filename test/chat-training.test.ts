// Training on conversations: the answers are learned, and what stands before them is only read.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { load } from "rwkv";
import { type TrainOptions, train } from "rwkv/training";
import { beforeEach, describe, expect, test } from "vitest";
import { randomGenerator } from "#rwkv/sampling/random";
import { byteTokenizer } from "#rwkv/tokenizers/bytes";
import { consecutiveBatches, shuffledBatches } from "#rwkv/training/batches";
import { type Dataset, datasetOf } from "#rwkv/training/dataset";
import { holdOut } from "#rwkv/training/document";
import { readDocuments } from "#rwkv/training/documents";
import { temporaryFolder } from "./fixture-files.js";

let folder = "";
beforeEach(async () => {
  folder = await temporaryFolder();
});
const path = (name: string) => join(folder, name);

async function written(records: readonly unknown[], name = "chats.jsonl"): Promise<string> {
  await writeFile(path(name), records.map((record) => JSON.stringify(record)).join("\n"));
  return path(name);
}

const tokenizer = byteTokenizer();
const encode = (text: string) => tokenizer.encode(text);

async function dataset(records: readonly unknown[], validation = 0): Promise<Dataset> {
  const split = holdOut(await readDocuments(await written(records)), validation);
  return datasetOf(split, { tokenizer, encode }, 8);
}

/** The text with what is only read in brackets. */
function marked({ tokens, learned }: Pick<Dataset, "tokens" | "learned">): string {
  let text = "";
  for (let i = 0; i < tokens.length; i++) {
    const [isRead, wasRead] = [i, i - 1].map((at) => at >= 0 && learned?.[at] === 0);
    text += (isRead && !wasRead ? "[" : "") + (!isRead && wasRead ? "]" : "") + String.fromCharCode(tokens[i]!);
  }
  return text;
}

const chat = (...said: string[]) => ({
  messages: said.map((content, i) => ({ role: i % 2 === 0 ? "user" : "assistant", content })),
});

describe("what is learned", () => {
  test("of messages the answers, with the blank line that ends them", async () => {
    const system = { role: "system", content: "Be kind." };
    const { messages } = chat("Hi", "Ho\n\nho", "Hm?", "No");
    expect(marked(await dataset([{ messages: [system, ...messages] }, chat("A", "B")]))).toBe(
      "[System: Be kind.\n\nUser: Hi\n\nAssistant:] Ho\nho\n\n[User: Hm?\n\nAssistant:] No[User: A\n\nAssistant:] B",
    );
  });

  test("of instructions the output, and of texts everything", async () => {
    const records = [
      { instruction: "Add.", input: "1 2", output: "3" },
      { text: "All of it." },
      { instruction: "Go", output: "I go" },
    ];
    const { learned, bytesPerToken, ...data } = await dataset(records);
    expect(marked({ ...data, ...(learned && { learned }) })).toBe(
      "[User: Add.\n1 2\n\nAssistant:] 3All of it.[User: Go\n\nAssistant:] I go",
    );
    expect(bytesPerToken).toBe(1);
    expect((await dataset([{ text: "All of it." }])).learned).toBeUndefined();
  });

  test("the end of a text is learned behind an answer, not behind a question", async () => {
    const ending = { ...tokenizer, endOfText: 36 }; // $
    const split = holdOut(await readDocuments(await written([chat("A", "B"), chat("C", "D", "E"), chat("F", "G")])), 0);
    expect(marked(await datasetOf(split, { tokenizer: ending, encode }, 8))).toBe(
      "$[User: A\n\nAssistant:] B$[User: C\n\nAssistant:] D\n\n[User: E$User: F\n\nAssistant:] G",
    );
  });

  test("where a conversation is cut for validation, its parts stay what they were", async () => {
    const { heldOut, ...rest } = await dataset([chat("Question", "The long answer to it")], 0.4);
    expect(marked(rest)).toBe("[User: Question\n\nAssistant:] T");
    expect(heldOut.map(({ bytes }) => bytes)).toEqual(["he long answer to it".length]);
  });

  test("windows and steps have targets where answers are, and none without any", async () => {
    const records = Array.from({ length: 40 }, (_, i) => chat(`Question ${i} ${"?".repeat(i)}`, `Answer ${i}`));
    const data = await dataset(records);
    const at = (start: number) => String.fromCharCode(data.tokens[start]!);
    const shuffled = shuffledBatches(data, 3, 8, 1);
    const consecutive = consecutiveBatches(data, 2, 8);
    expect(shuffled.stepsPerEpoch).toBeLessThan(shuffledBatches({ tokens: data.tokens }, 3, 8, 1).stepsPerEpoch);
    for (const batches of [shuffled, consecutive]) {
      for (let step = 0; step < 2 * batches.stepsPerEpoch; step++) {
        for (const { tokens, targets } of batches.at(step)) {
          if (batches === shuffled) expect(targets.some((target) => target >= 0)).toBe(true);
          const start = (tokens.byteOffset - data.tokens.byteOffset) / 4;
          targets.forEach((target, i) => {
            const next = start + i + 1;
            expect(target === -1 ? "-" : String.fromCharCode(target)).toBe(data.learned![next] === 1 ? at(next) : "-");
          });
        }
      }
    }
  });

  test("conversations in which nobody answers are refused", async () => {
    await expect(dataset([chat("A long question without an answer")])).rejects.toThrow(
      "expected answers of an assistant",
    );
  });
});

describe("a run", () => {
  const small = {
    tokenizer: "bytes",
    layers: 2,
    width: 32,
    context: 24,
    batch: 4,
    learningRate: 5e-3,
    warmup: 1,
    seed: 3,
  } as const;
  const run = (options: Partial<TrainOptions> & { data: string }) =>
    train({ ...small, out: path("run"), validation: 0, ...options });
  const random = randomGenerator(1);
  /** Questions that nobody can predict, and an answer that is easily learned. */
  const noise = (length: number) =>
    Array.from({ length }, () => String.fromCharCode(33 + Math.floor(random.uniform() * 90))).join("");
  const records = (count: number, length: number) =>
    Array.from({ length: count }, () => chat(noise(length), "aaaaaaaa"));

  test("measures and learns the answers alone", async () => {
    const result = await run({ data: await written(records(300, 60)), steps: 60, validation: 0.05 });
    expect(result.loss).toBeLessThan(0.8); // the questions alone have 4.5 nats per byte
    const model = await load(result.folder);
    let nats = 0;
    let bytes = 0;
    const held = (await readDocuments(path("chats.jsonl"))).slice(285);
    for (const { parts } of held) {
      const tokens = tokenizer.encode(parts.join(""));
      const state = model.createState();
      const [logits] = await model.forward([{ state, tokens, logits: "all" }]);
      await state.dispose();
      for (let i = parts[0]!.length + parts[1]!.length; i < tokens.length; i++) {
        const row = logits!.subarray((i - 1) * 256, i * 256);
        const most = Math.max(...row);
        nats += most + Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - most), 0)) - row[tokens[i]!]!;
        bytes++;
      }
    }
    await model.dispose();
    expect(bytes).toBe(15 * " aaaaaaaa".length);
    expect(result.validationBitsPerByte).toBeCloseTo(nats / Math.LN2 / bytes, 4);
  });

  test.each(["native", "wasm", "reference"] as const)(
    "goes on over steps in which nobody answers: %s",
    async (backend) => {
      const data = await written(records(3, 300));
      const options = {
        data,
        backend,
        carryState: true,
        batch: 1,
        steps: 30,
        context: 16,
        saveEvery: 7,
        width: 16,
        layers: 1,
      };
      const losses: number[] = [];
      const result = await run({
        ...options,
        onStep: ({ loss, gradientNorm }) => void losses.push(gradientNorm === 0 ? -loss : loss),
      });
      expect(result.finished).toBe(true);
      expect(losses.every(Number.isFinite)).toBe(true);
      expect(losses.filter((loss) => loss <= 0).length).toBeGreaterThan(10);
      expect(losses.filter((loss) => loss > 0).length).toBeGreaterThan(0);
    },
  );
});
