// Training through its public API: what a run leaves behind, that it can be stopped at any moment, and what it refuses.

import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { load, openCheckpoint, openTokenizer, readFloat32, TrainingError } from "rwkv";
import { type TrainOptions, train } from "rwkv/training";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { maxDifference } from "./environment.js";

let folder = "";
let data = "";
const path = (name: string) => join(folder, name);

/** Sentences of a small grammar: something to learn. */
function sentences(count: number): string {
  const names = ["The fox", "A king", "The old woman", "Her daughter"];
  const verbs = ["saw", "followed", "forgot"];
  const lines = Array.from({ length: count }, (_, i) => {
    const [a, b, c] = [(i * 7) % 4, (i * 5 + 1) % 3, (i * 3 + 2) % 4];
    return `${names[a]} ${verbs[b]} ${names[c]?.toLowerCase()}, and then went home. Ünd «ça» 東京 🦊.`;
  });
  return lines.join("\n\n");
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rwkv-training-"));
  data = path("tale.txt");
  await writeFile(data, sentences(300));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const small = {
  layers: 2,
  width: 24,
  vocabulary: 320,
  context: 16,
  batch: 4,
  steps: 12,
  learningRate: 1e-2,
  validateEvery: 5,
  saveEvery: 5,
  threads: 2,
} satisfies Partial<TrainOptions>;

/** The bytes of a file of a run. */
const bytesOf = (run: string, name: string) => readFile(join(path(run), name));

async function logOf(run: string): Promise<Record<string, number>[]> {
  const text = await readFile(join(path(run), "log.jsonl"), "utf8");
  return text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, number>);
}

test("a run leaves a model that generates, its tokenizer, a log, a curve", async () => {
  const steps: number[] = [];
  const saves: number[] = [];
  const result = await train({
    ...small,
    data,
    out: path("plain"),
    steps: 40,
    onStep: ({ step }) => void steps.push(step),
    onSave: ({ step }) => void saves.push(step),
  });
  expect(result).toMatchObject({ folder: path("plain"), step: 40, steps: 40 });
  expect(steps).toEqual(Array.from({ length: 40 }, (_, i) => i + 1));
  expect(saves).toEqual([0, 5, 10, 15, 20, 25, 30, 35, 40]);
  expect((await readdir(path("plain"))).sort()).toEqual([
    "checkpoint.safetensors",
    "log.jsonl",
    "loss.svg",
    "model.safetensors",
    "tokenizer.json",
    "training.json",
  ]);
  const log = await logOf("plain");
  const losses = log.flatMap(({ loss }) => loss ?? []);
  expect(losses[0]).toBeCloseTo(Math.log(320), 0);
  expect(losses.at(-1)).toBeLessThan(0.7 * losses[0]!);
  expect(result.loss).toBe(losses.at(-1));
  expect(result.validationBitsPerByte).toBeLessThan(
    log.find((entry) => entry["validation_bits_per_byte"])!["validation_bits_per_byte"]!,
  );
  const svg = await readFile(join(path("plain"), "loss.svg"), "utf8");
  expect(svg).toMatch(/^<svg [\s\S]*held out[\s\S]*<\/svg>\n$/);

  const tokenizer = await openTokenizer(join(path("plain"), "tokenizer.json"));
  const text = await readFile(data, "utf8");
  expect(tokenizer.vocabularySize).toBe(320);
  expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
  const model = await load(path("plain"));
  const generation = model.generate("The fox", { maxTokens: 20, seed: 1 });
  let generated = "";
  for await (const piece of generation) generated += piece;
  expect(generated.length).toBeGreaterThan(10);

  // What the run measured on the held-out text is what the loaded model gives: each token from all before it.
  const heldOut = text.slice(Math.floor(text.length * 0.95));
  const tokens = [tokenizer.endOfText!, ...tokenizer.encode(heldOut)];
  const [logits] = await model.forward([{ state: model.createState(), tokens: tokens.slice(0, -1), logits: "all" }]);
  let nats = 0;
  tokens.slice(1).forEach((token, t) => {
    const row = logits!.subarray(t * 320, (t + 1) * 320);
    nats += Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0)) - row[token]!;
  });
  expect(result.validationBitsPerByte).toBeCloseTo(nats / Math.LN2 / Buffer.byteLength(heldOut), 4);
  await model.dispose();
});

describe("a stopped run resumes to the same bits", () => {
  for (const [label, options] of [
    ["whole windows, dropout", { dropout: 0.1 }],
    ["the state carried on", { carryState: true, steps: 30 }],
  ] as const) {
    test(label, async () => {
      const name = label.replaceAll(/\W+/g, "-");
      const whole = { ...small, ...options, data, out: path(`${name}-whole`) };
      await train(whole);
      const stopped = { ...whole, out: path(`${name}-stopped`) };
      for (const stopAt of [4, 7]) {
        const controller = new AbortController();
        const result = await train({
          ...stopped,
          resume: stopAt !== 4,
          signal: controller.signal,
          onStep: ({ step }) => void (step === stopAt && controller.abort()),
        });
        expect(result.step).toBe(stopAt);
      }
      await train({ ...stopped, resume: true, threads: 1 });
      expect(await bytesOf(`${name}-stopped`, "model.safetensors")).toEqual(
        await bytesOf(`${name}-whole`, "model.safetensors"),
      );
      const numbers = (entries: Record<string, number>[]) => entries.map(({ step, loss }) => [step, loss]);
      expect(numbers(await logOf(`${name}-stopped`))).toEqual(numbers(await logOf(`${name}-whole`)));
    });
  }
});

describe("a checkpoint is fine-tuned", () => {
  const base = () => path("plain");

  test("full: the loss continues from where it was", async () => {
    const result = await train({ ...small, data, out: path("fine"), from: base(), learningRate: 1e-3 });
    const log = await logOf("fine");
    expect(log[0]!["loss"]).toBeLessThan((await logOf("plain"))[20]!["loss"]!);
    expect(result.step).toBe(12);
    const model = await load(path("fine"));
    expect((await model.generate("The", { maxTokens: 5, seed: 1 }).text()).length).toBeGreaterThan(0);
    await model.dispose();
  });

  test("by low-rank additions, which are merged in the saved model; other matrices stay as they were", async () => {
    const lora = { rank: 2, alpha: 4, matrices: ["att.key", "ffn.value"] };
    await train({ ...small, data, out: path("lora"), from: base(), lora, learningRate: 1e-2 });
    const [before, after] = [await openCheckpoint(base()), await openCheckpoint(path("lora"))];
    for (const [name, tensor] of before.tensors) {
      const [old, now] = [await readFloat32(tensor), await readFloat32(after.tensors.get(name)!)];
      const adapted = /att\.key|ffn\.value/.test(name);
      expect(maxDifference(old, now) > 0, name).toBe(adapted);
      if (name === "blocks.0.att.key.weight") expect(rankOf(old, now, 24)).toBe(2);
    }
    await Promise.all([before.close(), after.close()]);
    const log = await logOf("lora");
    const { loss } = log.findLast((entry) => entry["loss"] !== undefined)!;
    expect(loss).toBeLessThan(log[0]!["loss"]!);
  });

  test("by the state that texts begin with alone", async () => {
    // An RWKV-7 knows these sentences so well after as many steps that no first state tells it more.
    await train({ ...small, data, out: path("older"), version: "4", steps: 40 });
    const base = () => path("older");
    const options = {
      ...small,
      data,
      out: path("state"),
      from: base(),
      tuneState: true,
      learningRate: 0.05,
      steps: 30,
    };
    await train(options);
    expect((await bytesOf("state", "model.safetensors")).length).toBe(
      (await bytesOf("older", "model.safetensors")).length,
    );
    const log = (await logOf("state")).flatMap(({ loss }) => loss ?? []);
    const mean = (part: number[]) => part.reduce((sum, loss) => sum + loss, 0) / part.length;
    expect(mean(log.slice(-10))).toBeLessThan(mean(log.slice(0, 5)));
    const model = await load(base());
    const session = model.session(await bytesOf("state", "state.rwkv"));
    await session.read("The fox");
    await model.dispose();
  });
});

/** Rank of the difference of two square matrices, by elimination. */
function rankOf(a: Float32Array, b: Float32Array, width: number): number {
  const rows = Array.from({ length: width }, (_, r) =>
    Array.from({ length: width }, (_, c) => b[r * width + c]! - a[r * width + c]!),
  );
  const largest = Math.max(...rows.flat().map(Math.abs));
  let rank = 0;
  for (let c = 0; c < width; c++) {
    const pivot = rows.slice(rank).reduce((best, row) => (Math.abs(row[c]!) > Math.abs(best[c]!) ? row : best));
    if (Math.abs(pivot[c]!) < 1e-4 * largest) continue;
    rows.splice(rows.indexOf(pivot), 1);
    rows.splice(rank++, 0, pivot);
    for (const row of rows.slice(rank)) {
      const factor = row[c]! / pivot[c]!;
      for (let i = 0; i < width; i++) row[i]! -= factor * pivot[i]!;
    }
  }
  return rank;
}

test("a folder of texts and lines of JSON are read too", async () => {
  await mkdir(path("books/more"), { recursive: true });
  await writeFile(path("books/one.txt"), sentences(60));
  await writeFile(path("books/more/two.md"), sentences(60));
  await writeFile(path("books/picture.png"), Uint8Array.of(1, 0, 2));
  const lines = Array.from({ length: 300 }, (_, i) => JSON.stringify({ text: sentences(1 + (i % 3)) }));
  await writeFile(path("lines.jsonl"), `${lines.join("\n")}\n`);
  for (const source of ["books", "lines.jsonl"]) {
    const result = await train({ ...small, data: path(source), out: path(`run-of-${source}`), steps: 3 });
    expect(result.validationBitsPerByte, source).toBeGreaterThan(0);
  }
});

describe("little text", () => {
  const tiny = { ...small, layers: 1, width: 8, tokenizer: "bytes", batch: 64, steps: 2, saveEvery: 100 };
  const trained = (name: string, text: string, options: Partial<TrainOptions> = {}) =>
    writeFile(path(`${name}.txt`), text).then(() =>
      train({ ...tiny, data: path(`${name}.txt`), out: path(name), validation: 0, ...options }),
    );

  test("of one sequence and what follows it is enough, of a token less is not", async () => {
    expect((await trained("exact", "x".repeat(17))).step).toBe(2);
    await expect(trained("less", "x".repeat(16))).rejects.toThrow(/expected at least 17 tokens to train on.*found 16/);
  });

  test("fills a batch with windows that come more than once", async () => {
    expect((await trained("repeated", "abc".repeat(17))).step).toBe(2);
  });

  test("half of it held out, a thousandth of an epoch", async () => {
    const { steps: _, ...options } = tiny;
    await writeFile(path("half.txt"), "abcd".repeat(20));
    const data = path("half.txt");
    const result = await train({ ...options, data, out: path("half"), validation: 0.5, epochs: 0.001 });
    expect(result).toMatchObject({ step: 1, steps: 1, finished: true });
    expect(result.validationBitsPerByte).toBeGreaterThan(0);
  });

  test("is too little to carry states along 64 rows", () =>
    expect(trained("carried", "x".repeat(1024), { carryState: true })).rejects.toThrow(
      /expected at least 1025 tokens/,
    ));
});

test("a vocabulary of more than 65536 tokens is trained with and resumed", async () => {
  const json = JSON.parse(await readFile(join(path("plain"), "tokenizer.json"), "utf8"));
  json.added_tokens.push({ ...json.added_tokens[0], id: 70_000, content: "<far>" });
  await mkdir(path("far-tokenizer"));
  await writeFile(path("far-tokenizer/tokenizer.json"), JSON.stringify(json));
  await writeFile(path("far.txt"), "<far> and near. ".repeat(100));
  const options = { layers: 1, width: 8, context: 16, batch: 2, steps: 2, tokenizer: path("far-tokenizer") };
  await train({ ...options, data: path("far.txt"), out: path("far") });
  const result = await train({ data: path("far.txt"), out: path("far"), resume: true, steps: 3 });
  expect(result).toMatchObject({ step: 3, finished: true });
  const checkpoint = await openCheckpoint(join(path("far"), "model.safetensors"));
  const embedding = checkpoint.tensors.get("emb.weight")!;
  expect(embedding.shape).toEqual([70_001, 8]);
  // Its embedding is learned: it began uniform in plus or minus the learning rate, and has left that.
  const values = await readFloat32(embedding);
  await checkpoint.close();
  const largest = (id: number) => Math.max(...values.subarray(id * 8, id * 8 + 8).map(Math.abs));
  expect(largest(70_000)).toBeGreaterThan(8e-4);
  expect(largest(69_999)).toBeLessThanOrEqual(8e-4);
});

describe("what cannot be trained on is refused, and says what to do", () => {
  const refused = async (name: string, content: string | Uint8Array, message: RegExp) => {
    await writeFile(path(name), content);
    const run = train({ ...small, data: path(name), out: path("refused") });
    await expect(run).rejects.toThrow(TrainingError);
    await expect(run).rejects.toThrow(message);
  };

  test("nothing", () => refused("empty.txt", "", /empty.txt: expected text to train on, found none/));
  test("blanks", () => refused("blank.txt", " \n\n ", /expected text to train on, found none/));
  test("less than one sequence", () =>
    refused("tiny.txt", "Hi.", /expected at least 17 tokens.*more text, or a shorter context/));
  test("binary", () => refused("binary.txt", Uint8Array.of(72, 105, 0, 1), /binary file \(a zero byte at offset 2\)/));
  test("not UTF-8", () =>
    refused(
      "latin1.txt",
      Uint8Array.from([...Buffer.from("caf"), 0xe9, ...Buffer.from(" and so on")]),
      /UTF-8.*at offset 3.*iconv/,
    ));
  test("not JSON", () =>
    refused("bad.jsonl", '{"text": "a"}\nnonsense\n', /bad.jsonl, line 2: expected a JSON object/));
  test("JSON without text", () =>
    refused("other.jsonl", '{"prompt": "a"}\n', /line 1: expected an object with a string "text"/));

  test("no such file, an empty folder", async () => {
    await mkdir(path("nothing"), { recursive: true });
    await expect(train({ ...small, data: path("none.txt"), out: path("x") })).rejects.toThrow(
      /none.txt: cannot be read \(no such file/,
    );
    await expect(train({ ...small, data: path("nothing"), out: path("x") })).rejects.toThrow(
      /expected .txt, .md, .jsonl or .json files/,
    );
  });

  test("one endless line is cut into pieces, and trained on", async () => {
    await writeFile(path("endless.txt"), "ab".repeat(100_000));
    const result = await train({ ...small, data: path("endless.txt"), out: path("endless"), steps: 2 });
    expect(result.step).toBe(2);
  });

  test("invalid sizes", async () => {
    for (const [wrong, message] of [
      [{ layers: 0 }, /option layers: expected a whole number from 1/],
      [{ width: 1.5 }, /option width/],
      [{ vocabulary: 200 }, /option vocabulary: expected a whole number from 257/],
      [{ learningRate: Number.NaN }, /option learningRate/],
      [{ epochs: 2 }, /option epochs: expected either steps or epochs/],
      [{ lora: {} }, /option lora: expected a checkpoint to start from/],
    ] as const) {
      await expect(train({ ...small, ...wrong, data, out: path("wrong") })).rejects.toThrow(message);
    }
  });

  test("more than the machine's memory, before anything is allocated", async () => {
    const huge = { ...small, data, out: path("huge"), layers: 64, width: 16384 };
    await expect(train(huge)).rejects.toThrow(
      /training takes more than [\d.]+ GiB of memory, and this machine has [\d.]+ GiB: lower the batch/,
    );
  });

  test("a folder that contains a run, unless the run is resumed", async () => {
    await expect(train({ ...small, data, out: path("plain") })).rejects.toThrow(/this folder already contains a run/);
    await expect(train({ ...small, data, out: path("never"), resume: true })).rejects.toThrow(
      /expected the training.json of a run/,
    );
  });

  test("resuming with other options, other data, or another model's checkpoint", async () => {
    const run = { data, out: path("plain"), resume: true };
    await expect(train({ ...run, width: 32 })).rejects.toThrow(/option width: expected 24, with which the run in/);
    await expect(train({ ...run, data: path("books") })).rejects.toThrow(/expected the data that the run/);
    await train({ ...small, data, out: path("wider"), width: 32, steps: 1 });
    await writeFile(join(path("wider"), "checkpoint.safetensors"), await bytesOf("plain", "checkpoint.safetensors"));
    await expect(train({ data, out: path("wider"), resume: true })).rejects.toThrow(
      /expected weight\/\S+ \[.*\], found \[.*\] of f32: this is the checkpoint of another model/,
    );
  });

  test("a loss that explodes stops the run at the last good checkpoint", async () => {
    const run = train({
      ...small,
      data,
      out: path("exploding"),
      learningRate: 10,
      warmup: 0,
      steps: 60,
      maxGradientNorm: 1e9,
    });
    await expect(run).rejects.toThrow(
      /step \d+: .*; the last good checkpoint, of step \d+, is in .*lower learning rate/,
    );
    const model = await load(path("exploding"));
    await model.dispose();
  });
});
