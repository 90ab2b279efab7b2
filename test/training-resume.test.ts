// Runs that are stopped, moved, told something else, called twice, or fail half way: what is kept, what is refused, what
// continues.

import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { OptionError, openCheckpoint, TrainingError, writeSafetensors } from "rwkv";
import { type TrainOptions, train } from "rwkv/training";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { tensorPieces } from "#rwkv/checkpoints/read-tensor";
import { learningRateAt } from "#rwkv/training/schedule";

let folder = "";
let data = "";
const path = (name: string) => join(folder, name);

function sentences(count: number): string {
  const words = ["fox", "king", "goose", "daughter", "miller"];
  return Array.from(
    { length: count },
    (_, i) => `The ${words[(i * 7) % 5]} saw ${i % 13} of the ${words[i % 5]}s.`,
  ).join("\n");
}

const small = {
  layers: 2,
  width: 16,
  version: "4",
  vocabulary: 280,
  context: 16,
  batch: 4,
  steps: 12,
  learningRate: 1e-2,
  validateEvery: 5,
  saveEvery: 4,
  threads: 1,
} satisfies Partial<TrainOptions>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rwkv-resume-"));
  data = path("tale.txt");
  await writeFile(data, sentences(300));
  await train({ ...small, data, out: path("base") });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const modelOf = (run: string) => readFile(join(path(run), "model.safetensors"));
const recipeOf = async (run: string) => JSON.parse(await readFile(join(path(run), "training.json"), "utf8"));

async function logOf(run: string): Promise<Record<string, number>[]> {
  const text = await readFile(join(path(run), "log.jsonl"), "utf8");
  return text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
}

/** Trains until a step is done. */
function trainTo(step: number, options: TrainOptions) {
  const controller = new AbortController();
  const onStep = (progress: { step: number }) => void (progress.step === step && controller.abort());
  return train({ ...options, signal: controller.signal, onStep });
}

const copyOf = async (run: string, name: string) => {
  await cp(path(run), path(name), { recursive: true });
  return path(name);
};

describe("a run that is resumed with other options", () => {
  test("takes up where it ended, for more steps; the learning rate is that of the longer run", async () => {
    const out = await copyOf("base", "extended");
    const result = await train({ data, out, resume: true, steps: 20, threads: 1 });
    expect(result).toMatchObject({ step: 20, steps: 20, finished: true });
    const rates = (await logOf("extended")).flatMap(({ learning_rate }) => learning_rate ?? []);
    const schedule = { steps: 20, warmup: 0, learningRate: 1e-2, finalLearningRate: 1e-3, decay: "cosine" } as const;
    for (const step of [12, 15, 19]) expect(rates[step]).toBeCloseTo(learningRateAt(step, schedule), 12);
    expect(rates.length).toBe(20);
    // Stopped on the way, it continues to the same bits, without being told again.
    const stopped = await copyOf("base", "extended-stopped");
    expect(await trainTo(15, { data, out: stopped, resume: true, steps: 20 })).toMatchObject({
      step: 15,
      finished: false,
    });
    expect(await train({ data, out: stopped, resume: true })).toMatchObject({ step: 20, steps: 20 });
    expect(await modelOf("extended-stopped")).toEqual(await modelOf("extended"));
  });

  test("takes up where it ended for more epochs", async () => {
    const out = path("epochs");
    const { steps: _, ...options } = small;
    const first = await train({ ...options, data, out, epochs: 0.25 });
    const second = await train({ data, out, resume: true, epochs: 0.5 });
    expect(second.steps! / first.steps!).toBeCloseTo(2, 0);
    expect(second).toMatchObject({ step: second.steps, finished: true });
    expect(await recipeOf("epochs")).toMatchObject({ steps: null, epochs: 0.5 });
  });

  test("does nothing more where it is finished, and says the same of it", async () => {
    const out = await copyOf("base", "again");
    const [before, log] = [await modelOf("again"), await logOf("again")];
    const result = await train({ data, out, resume: true, steps: 12 });
    const measured = log.at(-1)!["validation_bits_per_byte_of_all"];
    expect(result).toMatchObject({ step: 12, finished: true, validationBitsPerByte: measured });
    expect(await logOf("again")).toEqual(log);
    expect(await modelOf("again")).toEqual(before);
  });

  test("accepts the options that it was started with", async () => {
    const out = await copyOf("base", "same");
    const tokenizer = join(out, "tokenizer.json");
    const result = await train({ ...small, data, out, resume: true, warmup: 0, tokenizer });
    expect(result.finished).toBe(true);
  });

  test.each([
    [{ steps: 5 }, /option steps: expected no fewer than the 12 steps that were done, found 5/],
    [{ epochs: 0.01 }, /option epochs: expected no fewer than the 12 steps/],
    [{ steps: 20, epochs: 2 }, /option epochs: expected either steps or epochs/],
    [{ steps: "many" as unknown as number }, /option steps: expected a whole number/],
    [{ warmup: 5 }, /option warmup: expected 0, with which the run was started, found 5/],
    [{ from: "elsewhere" }, /option from: expected none, since the run in/],
    [{ tokenizer: "bytes" }, /option tokenizer: expected one of its own, with which the run in/],
    [{ lora: {} }, /option lora: expected none, with which the run in/],
    [{ tuneState: true }, /option tuneState: expected false/],
    [{ learningRate: 1e-3 }, /option learningRate: expected 0.01/],
    [{ dtype: "bf16" as const }, /option dtype: expected f32/],
  ])("refuses %o", async (options, message) => {
    const resumed = train({ data, out: path("base"), resume: true, ...options });
    await expect(resumed).rejects.toThrow(OptionError);
    await expect(resumed).rejects.toThrow(message);
  });
});

test("a recipe that is damaged or made up is refused by the name of its field", async () => {
  const out = await copyOf("base", "hostile");
  const recipe = await recipeOf("base");
  const file = join(out, "training.json");
  const cases: [string | object, RegExp][] = [
    ["{", /training.json: not valid JSON/],
    ["null", /expected an object with the options of a run/],
    ["[]", /expected an object with the options of a run/],
    [{ ...recipe, width: "16" }, /training.json: width: expected a whole number from 1 to 65536, found "16"/],
    [{ ...recipe, layers: 1e9 }, /layers: expected a whole number from 1 to 1024, found 1000000000/],
    [JSON.stringify(recipe).replace('"batch":4', '"batch":1e999'), /batch: expected a whole number from 1 to 65536/],
    [{ ...recipe, learningRate: -1 }, /learningRate: expected a number from/],
    [{ ...recipe, decay: "linear" }, /decay: expected cosine or exponential, found "linear"/],
    [{ ...recipe, seed: undefined }, /seed: expected a whole number from 0 to 4294967295, found none/],
    [{ ...recipe, magic: 1 }, /magic: expected no such field, found 1/],
    [`{"__proto__": {"polluted": 1}, ${JSON.stringify(recipe).slice(1)}`, /__proto__: expected no such field/],
    [{ ...recipe, lora: { rank: 1e12, alpha: 1, matrices: [] } }, /lora.rank: expected a whole number/],
    [{ ...recipe, lora: { rank: 8, alpha: 16, matrices: ["att.key"] } }, /from: expected a checkpoint to start from/],
    [{ ...recipe, steps: null }, /epochs: expected either steps or epochs/],
    [{ ...recipe, tokenizer: 7 }, /tokenizer: expected a path, found 7/],
    [`"${"x".repeat(2 ** 20)}"`, /training.json: expected at most 1048576 bytes/],
  ];
  for (const [content, message] of cases) {
    await writeFile(file, typeof content === "string" ? content : JSON.stringify(content));
    const resumed = train({ data, out, resume: true });
    await expect(resumed).rejects.toThrow(TrainingError);
    await expect(resumed).rejects.toThrow(message);
  }
  // One from before fingerprints and versions of models were recorded is still taken.
  const { baseFingerprint: _, version: __, ...older } = recipe;
  await writeFile(file, JSON.stringify(older));
  expect((await train({ data, out, resume: true })).finished).toBe(true);
});

describe("a fine-tuned run", () => {
  const kinds = [
    ["lora", { lora: { rank: 2, matrices: ["att.key", "ffn.value"] } }],
    ["state", { tuneState: true, learningRate: 0.05 }],
    ["carried", { carryState: true }],
  ] as const;

  test.each(kinds)("resumes to the same bits with other threads: %s", async (name, options) => {
    const whole = { ...small, ...options, data, from: path("base"), out: path(`${name}-whole`) };
    await train(whole);
    const stopped = { ...whole, out: path(`${name}-stopped`) };
    await trainTo(5, stopped);
    await trainTo(7, { data, out: stopped.out, resume: true, threads: 2 });
    expect(await train({ data, out: stopped.out, resume: true, ...options })).toMatchObject({
      step: 12,
      finished: true,
    });
    expect(await modelOf(`${name}-stopped`)).toEqual(await modelOf(`${name}-whole`));
    if (name === "state") {
      const stateOf = (run: string) => readFile(join(path(run), "state.rwkv"));
      expect(await stateOf("state-stopped")).toEqual(await stateOf("state-whole"));
    }
  });

  test("resumes on another backend", async () => {
    const out = path("other-backend");
    await trainTo(5, { ...small, data, from: path("base"), out, lora: {}, backend: "reference" });
    const result = await train({ data, out, resume: true, backend: "wasm" });
    expect(result.loss).toBeCloseTo(
      (await train({ ...small, data, from: path("base"), out: `${out}-not`, lora: {} })).loss!,
      3,
    );
  });

  test("can be moved, and its base too, which is then named", async () => {
    const [base, out, moved] = [path("first-base"), path("tuned"), path("elsewhere/tuned")];
    await cp(path("base"), base, { recursive: true });
    const options = { ...small, data, from: base, tokenizer: base, lora: { rank: 2 } };
    await train({ ...options, out: path("tuned-whole") });
    await trainTo(5, { ...options, out });
    await mkdir(path("elsewhere"));
    await rename(out, moved);
    await trainTo(7, { data, out: moved, resume: true });
    await rename(base, path("second-base"));
    await expect(train({ data, out: moved, resume: true })).rejects.toThrow(
      /first-base.*: this is the base model of the run in .*; if it was moved, name its new path with from/,
    );
    await trainTo(9, { data, out: moved, resume: true, from: path("second-base") });
    expect((await recipeOf("elsewhere/tuned")).from).toBe(path("second-base"));
    expect((await train({ data, out: moved, resume: true })).finished).toBe(true);
    expect(await modelOf("elsewhere/tuned")).toEqual(await modelOf("tuned-whole"));
  });

  test("is not resumed upon another base, even one that only additions tell apart", async () => {
    const base = path("replaced");
    await cp(path("base"), base, { recursive: true });
    const out = path("upon-replaced");
    await trainTo(5, { ...small, data, from: base, out, lora: {} });
    await cp(join(path("lora-whole"), "model.safetensors"), join(base, "model.safetensors"));
    await expect(train({ data, out, resume: true })).rejects.toThrow(
      /replaced: expected the base model that the run in .* was started with, found another/,
    );
    await expect(train({ data, out, resume: true, from: path("lora-whole") })).rejects.toThrow(/found another/);
    // The same weights, computed with another epsilon.
    const { tensors, close } = await openCheckpoint(path("base"));
    const written = [...tensors.values()].map((tensor) => {
      return {
        name: tensor.name,
        dtype: "f32" as const,
        shape: tensor.shape,
        bytes: () => tensorPieces(tensor, "f32"),
      };
    });
    const metadata = { "rwkv.layer_norm_epsilon": "0.001" };
    await writeSafetensors(path("other-epsilon.safetensors"), written, { metadata });
    await close();
    const other = train({ data, out, resume: true, from: path("other-epsilon.safetensors") });
    await expect(other).rejects.toThrow(/found another/);
    expect((await train({ data, out, resume: true, from: path("base") })).finished).toBe(true);
  });
});

test("a base model says its version and sizes; others are refused", async () => {
  const { layers, width, version, vocabulary, ...rest } = small;
  const tuning = { ...rest, data, from: path("base"), steps: 1, validation: 0 };
  for (const [options, message] of [
    [{ layers: 3 }, /option layers: expected 2, which the base model .*base has, found 3/],
    [{ width: 31 }, /option width: expected 16, .*, found 31/],
    [{ hidden: 32 }, /option hidden: expected 64, .*, found 32/],
    [{ vocabulary: 300 }, /option vocabulary: expected 280, .*, found 300/],
    [{ version: "7" }, /option version: expected 4, .*, found "7"/],
  ] as const) {
    await expect(train({ ...tuning, ...options, out: path("refused-size") })).rejects.toThrow(message);
  }
  await train({ ...tuning, out: path("told-nothing") });
  const own = { version, layers, width, hidden: 64, vocabulary };
  expect(await recipeOf("told-nothing")).toMatchObject(own);
  // As earlier versions recorded it.
  const wrong = { ...(await recipeOf("told-nothing")), version: "7", layers: 6, width: 256, vocabulary: 4096 };
  await writeFile(path("told-nothing/training.json"), JSON.stringify(wrong));
  const resumed = { data, out: path("told-nothing"), resume: true, steps: 2 };
  await expect(train({ ...resumed, layers: 6 })).rejects.toThrow(/option layers: expected 2/);
  expect(await train({ ...resumed, layers: 2 })).toMatchObject({ step: 2, finished: true });
  expect(await recipeOf("told-nothing")).toMatchObject(own);
});

test("a model is not tuned with a tokenizer that cannot be its own", async () => {
  const tuned = train({ ...small, data, from: path("base"), out: path("mistaken"), tokenizer: "bytes", lora: {} });
  // 280 rows could be 256 tokens with padding; 1000 rows could not.
  await expect(tuned).resolves.toMatchObject({ finished: true });
  const words = Array.from({ length: 5000 }, (_, i) => ((i * 2654435761) % 2 ** 32).toString(36));
  await writeFile(path("many-words.txt"), words.join(" "));
  await train({ ...small, data: path("many-words.txt"), out: path("many-tokens"), vocabulary: 1000, steps: 1 });
  const { vocabulary, ...options } = small;
  const from = path("many-tokens");
  const mistaken = train({ ...options, data, from, out: path("mistaken-too"), tokenizer: "bytes" });
  await expect(mistaken).rejects.toThrow(
    /many-tokens: this tokenizer has 256 tokens, the model \d+: they do not belong together/,
  );
});

test("the tokenizer of a run is the one in its folder; without it the run is not resumed", async () => {
  const out = path("own-tokenizer");
  const tokenizer = path("tokenizer-folder");
  await mkdir(tokenizer);
  await cp(join(path("base"), "tokenizer.json"), join(tokenizer, "20B_tokenizer.json"));
  await trainTo(3, { ...small, data, out, tokenizer });
  await rm(tokenizer, { recursive: true });
  await trainTo(5, { data, out, resume: true });
  await rm(join(out, "tokenizer.json"));
  await expect(train({ data, out, resume: true })).rejects.toThrow(
    /expected the tokenizer of the run to resume in this folder/,
  );
});

test("data may be renamed, but not changed by a byte or a file", async () => {
  const books = path("books");
  await mkdir(books);
  await writeFile(join(books, "a.txt"), sentences(200));
  const out = path("of-books");
  await trainTo(3, { ...small, data: books, out });
  await rename(books, path("tomes"));
  await rename(join(path("tomes"), "a.txt"), join(path("tomes"), "b.md"));
  await trainTo(4, { data: path("tomes"), out, resume: true });
  const refused = () =>
    expect(train({ data: path("tomes"), out, resume: true })).rejects.toThrow(/expected the data that the run/);
  await writeFile(join(path("tomes"), "c.txt"), "One more.");
  await refused();
  await rm(join(path("tomes"), "c.txt"));
  await writeFile(join(path("tomes"), "b.md"), sentences(200).replace("saw 1 of", "saw 2 of"));
  await refused();
  await writeFile(join(path("tomes"), "b.md"), sentences(200));
  expect((await train({ data: path("tomes"), out, resume: true })).finished).toBe(true);
});

describe("a signal", () => {
  test("that is aborted already leaves nothing behind", async () => {
    const result = await train({ ...small, data, out: path("never/there"), signal: AbortSignal.abort() });
    expect(result).toEqual({ folder: path("never/there"), finished: false, saved: false, step: 0, seconds: 0 });
    await expect(readdir(path("never/there"))).rejects.toThrow("ENOENT");
    const resumed = await train({ data, out: path("base"), resume: true, signal: AbortSignal.abort() });
    expect(resumed).toMatchObject({ finished: false, saved: true, step: 12 });
  });

  test("is seen while a tokenizer is trained", async () => {
    const words = Array.from({ length: 250_000 }, (_, i) => ((i * 2654435761) % 2 ** 32).toString(36));
    await writeFile(path("many.txt"), words.join(" "));
    const controller = new AbortController();
    const notices: string[] = [];
    const onNotice = (line: string) => {
      notices.push(line);
      // Work that did not let the event loop have its turn would be done before this.
      setTimeout(() => controller.abort(), 0);
    };
    const out = path("interrupted");
    const options = { ...small, vocabulary: 20_000, data: path("many.txt"), out, onNotice };
    expect(await train({ ...options, signal: controller.signal })).toMatchObject({
      finished: false,
      saved: false,
      step: 0,
    });
    expect(notices).toEqual(["training a tokenizer of 20000 tokens"]);
    await expect(readdir(out)).rejects.toThrow("ENOENT");
  });

  test("before the first step of a run that was set up gives a result without a loss, and a run to resume", async () => {
    const controller = new AbortController();
    const out = path("set-up");
    const onSave = () => controller.abort();
    const result = await train({ ...small, data, out, signal: controller.signal, onSave });
    expect(result).toMatchObject({ step: 0, steps: 12, finished: false, saved: true });
    expect(result).not.toHaveProperty("loss");
    await train({ data, out, resume: true });
    expect(await modelOf("set-up")).toEqual(await modelOf("base"));
  });
});

describe("a call", () => {
  test("takes options as they are when it is made", async () => {
    const matrices = ["att.key"];
    const options = { ...small, data, from: path("base"), out: path("copied"), lora: { rank: 2, matrices }, steps: 2 };
    const run = train(options);
    Object.assign(options, { steps: 9, data: "nowhere", out: path("wrong") });
    options.lora.rank = 4;
    matrices.push("att.value");
    expect(await run).toMatchObject({ folder: path("copied"), steps: 2 });
    expect((await recipeOf("copied")).lora).toEqual({ rank: 2, alpha: 4, matrices: ["att.key"] });
  });

  test("is refused while another trains in the folder, by whatever path", async () => {
    const out = path("twice");
    const calls = [train({ ...small, data, out }), train({ ...small, data, out: join(folder, "base", "..", "twice") })];
    const results = await Promise.allSettled(calls);
    expect(results.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    const refused = results.find((result) => result.status === "rejected");
    expect(refused?.reason).toBeInstanceOf(TrainingError);
    expect(refused?.reason.message).toMatch(/expected a folder that no run is using/);
    expect((await train({ data, out, resume: true })).finished).toBe(true);
    expect(await modelOf("twice")).toEqual(await modelOf("base"));
  });

  test("leaves a model alone that is in the folder and of no run", async () => {
    const out = path("a-model");
    await mkdir(out);
    await writeFile(join(out, "model.safetensors"), "precious");
    await expect(train({ ...small, data, out })).rejects.toThrow(
      /this folder contains a model, which the run would overwrite/,
    );
    await rename(join(out, "model.safetensors"), join(out, "tokenizer.json"));
    await expect(train({ ...small, data, out })).rejects.toThrow(
      /tokenizer.json: the run would overwrite this tokenizer/,
    );
    expect(await readdir(out)).toEqual(["tokenizer.json"]);
  });

  test.each([
    [{ data: undefined }, /option data: expected a path, found undefined/],
    [{ out: "" }, /option out: expected a path, found ""/],
    [{ saveEvery: 0 }, /option saveEvery: expected a whole number from 1/],
    [{ validateEvery: Number.NaN }, /option validateEvery/],
    [{ threads: 1.5 }, /option threads/],
    [{ backend: "gpu" }, /option backend: expected native or wasm or reference, found "gpu"/],
    [{ signal: {} }, /option signal: expected an AbortSignal/],
    [{ onStep: "log" }, /option onStep: expected a function/],
    [{ learningRate: "0.1" }, /option learningRate: expected a number from/],
    [{ tuneState: "yes", from: "x" }, /option tuneState: expected true or false/],
    [{ dtype: "q8" }, /option dtype: expected f32 or f16 or bf16/],
    [{ lora: { rank: 0 }, from: "x" }, /option lora.rank/],
    [{ lora: { matrices: "att.key" }, from: "x" }, /option lora.matrices: expected some of/],
  ])("with %o is refused", async (wrong, message) => {
    const call = train({ ...small, data, out: path("wrong"), ...wrong } as unknown as TrainOptions);
    await expect(call).rejects.toThrow(OptionError);
    await expect(call).rejects.toThrow(message);
  });
});

test.each([
  ["onStep, thrown", { onStep: ({ step }: { step: number }) => void (step === 6 && fail()) }],
  ["onStep, rejected", { onStep: async ({ step }: { step: number }) => void (step === 6 && fail()) }],
  ["onSave, rejected", { onSave: async ({ step }: { step: number }) => void (step === 4 && fail()) }],
  ["onSave, at the first save", { onSave: () => fail() }],
])("what a callback throws ends the run, which resumes to the same bits: %s", async (name, callbacks) => {
  const out = path(name.replaceAll(/\W+/g, "-"));
  await expect(train({ ...small, data, out, ...callbacks })).rejects.toThrow("from the callback");
  expect((await train({ data, out, resume: true })).finished).toBe(true);
  expect(await readFile(join(out, "model.safetensors"))).toEqual(await modelOf("base"));
});

function fail(): never {
  throw new Error("from the callback");
}
