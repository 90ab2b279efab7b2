// config.json: when it counts, what it may say, and that what it says of the model is not lost when the model is written anew.

import { cp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { load, openCheckpoint } from "rwkv";
import { train } from "rwkv/training";
import { describe, expect, test } from "vitest";
import { convert } from "#rwkv/cli/convert";
import { fixture, temporaryFolder } from "./fixture-files.js";
import { rewrite } from "./rewritten-checkpoints.js";

const odd = fixture("odd.pth");
const tokens = [1, 2, 3, 4];

async function logitsOf(path: string): Promise<number[]> {
  const model = await load(path, { backend: "reference" });
  const [logits] = await model.forward([{ state: model.createState(), tokens }]);
  const values = [...(logits as Float32Array)];
  await model.dispose();
  return values;
}

/** A folder with the odd model under a name and a config.json. */
async function folderWith(name: string, config: unknown): Promise<string> {
  const folder = await temporaryFolder();
  await rewrite(odd, join(folder, name));
  await writeFile(join(folder, "config.json"), typeof config === "string" ? config : JSON.stringify(config));
  return folder;
}

const disturbing: readonly (readonly [description: string, config: unknown])[] = [
  ["an RWKV of another size", { model_type: "rwkv", hidden_size: 768, layer_norm_epsilon: 1e-2 }],
  ["a model of another kind", { model_type: "llama", vocab_size: 32000, layer_norm_epsilon: 1e-2 }],
  ["no JSON", "{"],
  ["an empty file", ""],
  ["a list", "[]"],
  ["2 MB", `{"a":"${"x".repeat(2_000_000)}"}`],
];

describe("beside a file with a name of its own", () => {
  test.each(disturbing)("config.json is not read: %s", async (_, config) => {
    const folder = await folderWith("RWKV-4-odd.pth", config);
    expect(await logitsOf(join(folder, "RWKV-4-odd.pth"))).toEqual(await logitsOf(odd));
    expect(await logitsOf(folder)).toEqual(await logitsOf(odd));
  });
});

describe("beside model.safetensors", () => {
  test("config.json of a model of another kind is not this model's", async () => {
    const folder = await folderWith("model.safetensors", { model_type: "llama", layer_norm_epsilon: 1e-2 });
    expect(await logitsOf(folder)).toEqual(await logitsOf(odd));
  });

  test("it may begin with a byte order mark", async () => {
    const folder = await folderWith("model.safetensors", `\uFEFF${JSON.stringify({ layer_norm_epsilon: 1e-2 })}`);
    expect(await logitsOf(folder)).not.toEqual(await logitsOf(odd));
  });

  test.each([
    ["{", "not valid JSON"],
    ["[]", "expected a JSON object"],
    [`{"a":"${"x".repeat(2_000_000)}"}`, "expected at most"],
    ['{"vocab_size":"33"}', 'vocab_size "33", but the tensors have 33'],
    ['{"layer_norm_epsilon":"1e-5"}', 'layer_norm_epsilon: expected a number between 0 and 1, found "1e-5"'],
    ['{"layer_norm_epsilon":1e999}', "expected a number between 0 and 1"],
    ['{"layer_norm_epsilon":-1}', "expected a number between 0 and 1, found -1"],
  ])("what is wrong with it is said: %.30s", async (config, message) => {
    await expect(load(await folderWith("model.safetensors", config))).rejects.toThrow(message);
  });
});

describe("what config.json says of the model stays with it", () => {
  test.each(["converted.safetensors", "converted.pth"])("epsilon, in %s", async (name) => {
    const folder = await folderWith("model.safetensors", { model_type: "rwkv", layer_norm_epsilon: 1e-2 });
    const expected = await logitsOf(folder);
    expect(expected).not.toEqual(await logitsOf(odd));
    const out = join(await temporaryFolder(), name);
    await convert(folder, out);
    expect(await logitsOf(out)).toEqual(expected);
    // And on from there, to the other format.
    const on = join(await temporaryFolder(), name === "converted.pth" ? "on.safetensors" : "on.pth");
    await convert(out, on);
    expect(await logitsOf(on)).toEqual(expected);
  });

  test("a usual epsilon leaves no trace", async () => {
    const folder = await folderWith("model.safetensors", { layer_norm_epsilon: 1e-5 });
    await convert(folder, join(folder, "out.safetensors"));
    const checkpoint = await openCheckpoint(join(folder, "out.safetensors"));
    expect(checkpoint.metadata).toEqual({});
    await checkpoint.close();
  });

  async function tiedFolder(): Promise<string> {
    const folder = await temporaryFolder();
    const config = { model_type: "rwkv", tie_word_embeddings: true };
    const withoutHead = (tensors: Parameters<NonNullable<Parameters<typeof rewrite>[2]>>[0]) =>
      tensors.filter(({ name }) => name !== "head.weight");
    await rewrite(odd, join(folder, "model.safetensors"), withoutHead);
    await writeFile(join(folder, "config.json"), JSON.stringify(config));
    return folder;
  }

  test.each(["converted.safetensors", "converted.pth"])("a head that is tied to the embedding, in %s", async (name) => {
    const folder = await tiedFolder();
    const out = join(await temporaryFolder(), name);
    await convert(folder, out);
    expect(await logitsOf(out)).toEqual(await logitsOf(folder));
  });

  test("a tied head gets blocks, the embedding does not, and states still fit", async () => {
    const folder = await tiedFolder();
    const out = join(await temporaryFolder(), "q8.safetensors");
    await convert(folder, out, { dtype: "q8" });
    const checkpoint = await openCheckpoint(out);
    expect(checkpoint.tensors.get("head.weight")?.dtype).toBe("q8");
    expect(checkpoint.tensors.get("emb.weight")?.dtype).toBe("f32");
    await checkpoint.close();
    const [before, after] = [await load(folder), await load(out)];
    const session = before.session();
    await session.read(tokens);
    const saved = await session.save();
    expect(() => after.session(saved)).not.toThrow();
    await before.dispose();
    await after.dispose();
  });

  test("epsilon, in the model that fine-tuning saves", async () => {
    const folder = await temporaryFolder();
    const embedded = fileURLToPath(new URL("../embedded/", import.meta.url));
    await cp(embedded, folder, { recursive: true });
    await writeFile(join(folder, "config.json"), JSON.stringify({ model_type: "rwkv", layer_norm_epsilon: 1e-2 }));
    const data = join(folder, "text.txt");
    await writeFile(data, "The king said no. ".repeat(50));
    const out = join(folder, "run");
    await train({ data, out, from: folder, lora: { rank: 1 }, steps: 1, context: 16, batch: 1, validation: 0 });
    const checkpoint = await openCheckpoint(out);
    expect(checkpoint.metadata).toEqual({ "rwkv.layer_norm_epsilon": "0.01" });
    await checkpoint.close();
  });
});
