// GGUF files and those of rwkv.cpp as other programs wrote them, where the data folder is there.

import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { load, openCheckpoint, openTokenizer, readFloat32 } from "rwkv";
import { describe, expect, test } from "vitest";
import type { Metadata } from "#rwkv/checkpoints/checkpoint";
import { loadCheckpoint } from "#rwkv/load";
import { definitions } from "#rwkv/models/definitions";
import { withOfficialTensors } from "#rwkv/models/official-tensors";
import { tokenizerIn } from "#rwkv/tokenizers/open-tokenizer";
import { worldVocabularyText } from "#rwkv/tokenizers/stored-tokenizer";
import { hasSharedData, maxDifference, readFloats, readJson, sharedData } from "./fixture-files.js";
import { isThorough } from "./thorough.js";

if (!hasSharedData) console.info("skipped: no data folder beside the checkout, so no GGUF files of other programs");

const filesIn = (folder: string, ending: RegExp) =>
  hasSharedData ? readdirSync(sharedData(folder)).filter((name) => ending.test(name)) : [];

const isRunnable = (version: string | undefined) => definitions.some((definition) => definition.version === version);

/** The first of the tokens whose logits are known. */
const readTokens = () => {
  const all = readJson<number[] | { tokens: number[] }>(sharedData("golden/synthetic.tokens.json"));
  return { tokens: (Array.isArray(all) ? all : all.tokens).slice(0, 48) };
};

/** What gguf-py says of a tensor. */
interface Check {
  readonly type: string;
  readonly shape: readonly number[];
  readonly first: readonly number[];
  readonly last: readonly number[];
  readonly sum: number;
  readonly squares: number;
}

describe.skipIf(!hasSharedData)("GGUF files of llama.cpp", () => {
  test.each(filesIn("gguf", /\.check\.json$/))("%s: types, shapes and dequantized values", async (name) => {
    const checks = Object.entries(readJson<Record<string, Check>>(sharedData(`gguf/${name}`)));
    const checkpoint = await openCheckpoint(sharedData(`gguf/${name.replace(".check.json", ".gguf")}`));
    expect([...checkpoint.tensors.keys()].sort()).toEqual(checks.map(([tensor]) => tensor).sort());
    for (const [tensor, check] of checks) {
      const stored = checkpoint.tensors.get(tensor)!;
      expect(stored.dtype.toUpperCase()).toBe(check.type);
      expect(stored.shape).toEqual(check.shape);
      const values = await readFloat32(stored);
      const isClose = (found: ArrayLike<number>, expected: readonly number[]) =>
        expected.every((value, i) => Math.abs(found[i]! - value) <= 1e-6 * Math.abs(value));
      expect(isClose(values.subarray(0, 8), check.first), tensor).toBe(true);
      expect(isClose(values.subarray(-8), check.last), tensor).toBe(true);
      const squares = values.reduce((sum, value) => sum + value * value, 0);
      const sum = values.reduce((total, value) => total + value, 0);
      expect(Math.abs(squares / check.squares - 1)).toBeLessThan(1e-6);
      expect(Math.abs(sum - check.sum)).toBeLessThan(1e-6 * Math.sqrt(squares * values.length));
    }
    await checkpoint.close();
  });

  const logits = filesIn("gguf", /\.logits\.f32$/).filter((name) => isRunnable(/^rwkv(\d)/.exec(name)?.[1]));
  test.each(logits)("%s", async (name) => {
    const { tokens } = readTokens();
    const path = sharedData(`gguf/${name.replace(".logits.f32", ".gguf")}`);
    const expected = readFloats(sharedData(`gguf/${name}`)).subarray(0, tokens.length * 320);
    // Blocks are compared as what they stand for; what products of them with 8 bits lose is placement's matter.
    const isFloat = /-(f32|F16|BF16)\./.test(name);
    const model = await load(path, { threads: 1, ...(!isFloat && { dtype: "f32" }) });
    const [found] = await model.forward([{ state: model.createState(), tokens, logits: "all" }]);
    expect(maxDifference(found!, expected)).toBeLessThan(2e-4);
    expect(model.tokenizer.kind).toBe("world");
    await model.dispose();
  });

  const inBlocks = logits.filter((name) => !/-(f32|F16|BF16)\./.test(name));
  test.each(inBlocks)("%s as it is: rounding activations to 8 bits costs little", async (name) => {
    const { tokens } = readTokens();
    const path = sharedData(`gguf/${name.replace(".logits.f32", ".gguf")}`);
    const expected = readFloats(sharedData(`gguf/${name}`)).subarray(0, tokens.length * 320);
    // The long tests convert every type in WebAssembly, too.
    const backends =
      isThorough || /-(Q8_0|Q4_0|Q4_K_M|Q5_K_M|Q6_K)\./.test(name)
        ? (["native", "wasm"] as const)
        : (["native"] as const);
    for (const backend of backends) {
      const warnings: string[] = [];
      const model = await load(path, { backend, threads: 1, onWarning: (line) => warnings.push(line) });
      const [, fitted] = /-(Q4_1|Q5_1|Q2_K|IQ4_XS)\./.exec(name) ?? [];
      expect(warnings).toEqual(fitted ? [expect.stringContaining(`kernels have no type like ${fitted};`)] : []);
      const [found] = await model.forward([{ state: model.createState(), tokens, logits: "all" }]);
      const squares = found!.reduce((sum, logit, i) => sum + (logit - expected[i]!) ** 2, 0);
      expect(Math.sqrt(squares / expected.length), backend).toBeLessThan(0.025);
      await model.dispose();
    }
  });

  test("inspect shows what is in one", async () => {
    const main = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
    const run = promisify(execFile)(process.execPath, [main, "inspect", "--json", sharedData("gguf/rwkv7-Q4_0.gguf")]);
    const inspection = JSON.parse((await run).stdout);
    expect(inspection).toMatchObject({
      format: "gguf",
      version: "7",
      layers: 2,
      width: 256,
      intact: null,
      dtypes: { f32: 48, Q4_0: 13, Q6_K: 1 },
      metadata: { "general.architecture": "rwkv7", "rwkv7.block_count": "2" },
      vocabulary: { kind: "rwkv", tokens: 320 },
      warnings: [],
    });
  });

  test("the World vocabulary in one is that of the file", async () => {
    const path = sharedData("gguf/rwkv7-world-vocabulary-Q8_0.gguf");
    const checkpoint = await openCheckpoint(path);
    await checkpoint.close();
    const tokenizer = tokenizerIn(checkpoint)!;
    const file = await openTokenizer(sharedData("tokenizers/rwkv_vocab_v20230424.txt"));
    expect(tokenizer.vocabularySize).toBe(file.vocabularySize);
    const vectors = readJson<{ text: string; ids: number[] }[]>(
      sharedData("tokenizers/rwkv_vocab_v20230424.vectors.json"),
    );
    for (const { text, ids } of vectors) {
      expect(tokenizer.encode(text)).toEqual(ids);
      expect(tokenizer.decode(ids)).toBe(text);
    }
    const others = Array.from({ length: 65536 }, (_, id) => id).filter(
      (id) => tokenizer.decode([id]) !== file.decode([id]),
    );
    expect(others).toEqual([]);
    // What llama.cpp takes for its tokens 0 and 65530 is text.
    for (const text of ["<s>", "a<s>b", "[PAD65530]"]) {
      expect(tokenizer.encode(text)).toEqual(file.encode(text));
      expect(tokenizer.encode(text)).not.toContain(0);
    }
    expect(tokenizer.endOfText).toBe(0);
    const text = readFileSync(sharedData("tokenizers/rwkv_vocab_v20230424.txt"), "utf8");
    expect(worldVocabularyText(tokenizer) === text).toBe(true); // a difference of a megabyte is not to be shown
  });
});

/** Logits after every token, from the empty state. @param metadata what is said beside what the file says */
async function logitsOf(path: string, tokens: readonly number[], metadata: Metadata = {}): Promise<Float32Array> {
  const checkpoint = await openCheckpoint(path);
  const told = { ...checkpoint, metadata: { ...checkpoint.metadata, ...metadata } };
  const model = await loadCheckpoint(told, { dtype: "f32", threads: 1 });
  const [logits] = await model.forward([{ state: model.createState(), tokens, logits: "all" }]);
  await model.dispose();
  return logits as Float32Array;
}

test.each(filesIn("gguf", /^rwkv6-.*\.gguf$/))("%s: the official logits of its dequantized weights", async (name) => {
  const expected = readFloats(sharedData(`gguf/${name.replace(".gguf", ".logits.f32")}`));
  const tokens = readJson<number[]>(sharedData("golden/synthetic.tokens.json"));
  expect(maxDifference(await logitsOf(sharedData(`gguf/${name}`), tokens), expected)).toBeLessThan(2e-4);
});

describe.skipIf(!hasSharedData)("files of rwkv.cpp", () => {
  const prompt = [...'"in'].map((letter) => letter.charCodeAt(0));

  test.each(["5v1-730K-FP32", "5v2-730K-FP32", "6v0-3m-Q5_0", "6v0-3m-Q5_1"])("%s: official logits", async (name) => {
    const logits = await logitsOf(sharedData(`ggml/tiny-rwkv-${name}.bin`), prompt);
    expect(maxDifference(logits, readFloats(sharedData(`ggml/official-logits-${name}.f32`)))).toBeLessThan(2e-4);
  });

  // rwkv.cpp has 1e-5 in the norm of heads of version 5, and so its own logits; no model was trained with that.
  test.each(["5v1-730K", "5v2-730K"])("%s with the epsilon of rwkv.cpp: its logits", async (name) => {
    const path = sharedData(`ggml/tiny-rwkv-${name}-FP32.bin`);
    const logits = await logitsOf(path, prompt, { "rwkv.ln_x_epsilon": "1e-5" });
    const expected = readFloats(sharedData(`ggml/expected-logits-${name}.bin`));
    expect(maxDifference(logits.subarray(-expected.length), expected)).toBeLessThan(2e-4);
  });

  test.each(filesIn("ggml", /^tiny-.*\.bin$/))("%s has RWKV-LM's tensors", async (name) => {
    const checkpoint = await openCheckpoint(sharedData(`ggml/${name}`));
    const { tensors } = withOfficialTensors(checkpoint);
    for (const tensor of tensors.values()) {
      expect((await readFloat32(tensor)).every(Number.isFinite)).toBe(true);
      expect(tensor.name).toMatch(/^(emb|head|ln_out|blocks\.\d+\.(att|ffn|ln[012]))\./);
    }
    await checkpoint.close();
  });

  test.each([
    ["FP32", 1e-4],
    ["FP16", 0.005],
    ["Q5_0", 0.2],
    ["Q5_1", 0.2],
  ])("version 4, %s: the logits of its authors' test", async (type, tolerance) => {
    const model = await load(sharedData(`ggml/tiny-rwkv-4v0-660K-${type}.bin`), { dtype: "f32", threads: 1 });
    const [logits] = await model.forward([{ state: model.createState(), tokens: model.tokenizer.encode('"in') }]);
    expect(maxDifference(logits!, readFloats(sharedData("ggml/expected-logits-4v0-660K.bin")))).toBeLessThan(tolerance);
    await model.dispose();
  });

  const versions: Readonly<Record<string, string>> = { "5v1": "5.0", "5v2": "5.2", "6v0": "6", "7v0": "7" };
  const official = filesIn("ggml", /^official-logits-.*\.f32$/).filter((name) => {
    return isRunnable(versions[name.split("-")[2]!]);
  });
  test.each(official)("%s", async (name) => {
    const path = sharedData(`ggml/${name.replace("official-logits", "tiny-rwkv").replace(".f32", ".bin")}`);
    const model = await load(path, { dtype: "f32", threads: 1 });
    const tokens = model.tokenizer.encode('"in');
    const [logits] = await model.forward([{ state: model.createState(), tokens, logits: "all" }]);
    expect(maxDifference(logits!, readFloats(sharedData(`ggml/${name}`)))).toBeLessThan(2e-4);
    await model.dispose();
  });
});
