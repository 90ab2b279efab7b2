// Models as llama.cpp's converter writes them, and back: names, layouts, and the blocks of their matrices.

import { writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { GGMLQuantizationType, gguf } from "@huggingface/gguf";
import { chatFormatFor, load, openCheckpoint, readFloat32, type StoredTensor } from "rwkv";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { tensorPieces } from "#rwkv/checkpoints/read-tensor";
import { type GgufValue, writeGguf } from "#rwkv/checkpoints/write-gguf";
import { writePth } from "#rwkv/checkpoints/write-pth";
import { convert } from "#rwkv/cli/convert";
import { ggufModelOf } from "#rwkv/models/gguf-tensors";
import { withOfficialTensors } from "#rwkv/models/official-tensors";
import { bindModel } from "#rwkv/models/versions";
import { dequantizeGroup, quantizeGroup } from "#rwkv/quantization/blocks";
import { quantizeSuperBlocks } from "#rwkv/quantization/quantize-super-blocks";
import { rowsOfGroup } from "#rwkv/quantization/rows-of-groups";
import { blockFormats } from "#rwkv/quantization/storage-types";
import { tokenizerIn } from "#rwkv/tokenizers/open-tokenizer";
import { vocabularyOf } from "#rwkv/tokenizers/stored-tokenizer";
import { tokenizerOfTokens } from "#rwkv/tokenizers/world";
import { storedTensor } from "#rwkv/training/initialize";
import { fixture, maxDifference, temporaryFolder } from "./fixture-files.js";

const [usualWidth, headSize, rank] = [64, 16, 8];

/** RWKV-LM's tensors of a layer, as shapes. */
const layersOf = (width: number): Readonly<Record<string, Readonly<Record<string, readonly number[]>>>> => ({
  6: {
    ...Object.fromEntries(["x", "w", "k", "v", "r", "g"].map((name) => [`att.time_maa_${name}`, [1, 1, width]])),
    "att.time_maa_w1": [width, 5 * rank],
    "att.time_maa_w2": [5, rank, width],
    "att.time_decay": [1, 1, width],
    "att.time_decay_w1": [width, 2 * rank],
    "att.time_decay_w2": [2 * rank, width],
    "att.time_faaaa": [width / headSize, headSize],
    "att.gate.weight": [width, width],
    "ffn.time_maa_k": [1, 1, width],
    "ffn.time_maa_r": [1, 1, width],
    "ffn.receptance.weight": [width, width],
  },
  7: {
    ...Object.fromEntries(["r", "w", "k", "v", "a", "g"].map((name) => [`att.x_${name}`, [1, 1, width]])),
    ...Object.fromEntries(["w", "a", "v"].map((name) => [`att.${name}0`, [1, 1, width]])),
    ...Object.fromEntries(["w", "a", "v", "g"].map((name, i) => [`att.${name}1`, [width, rank + i]])),
    ...Object.fromEntries(["w", "a", "v", "g"].map((name, i) => [`att.${name}2`, [rank + i, width]])),
    "att.k_k": [1, 1, width],
    "att.k_a": [1, 1, width],
    "att.r_k": [width / headSize, headSize],
    "ffn.x_k": [1, 1, width],
  },
});
const inBoth = (width: number): Readonly<Record<string, readonly number[]>> => ({
  ...Object.fromEntries(
    ["ln1", "ln2", "att.ln_x"].flatMap((n) => [
      [`${n}.weight`, [width]],
      [`${n}.bias`, [width]],
    ]),
  ),
  ...Object.fromEntries(["receptance", "key", "value", "output"].map((n) => [`att.${n}.weight`, [width, width]])),
  "ffn.key.weight": [3 * width, width],
  "ffn.value.weight": [width, 3 * width],
});

/** All tensors of a made-up model, each with values of its own. */
function official(version: string, count: number, width: number = usualWidth): Map<string, StoredTensor> {
  const shapes: [string, readonly number[]][] = [
    ["emb.weight", [40, width]],
    ["blocks.0.ln0.weight", [width]],
    ["blocks.0.ln0.bias", [width]],
    ["ln_out.weight", [width]],
    ["ln_out.bias", [width]],
    ["head.weight", [40, width]],
  ];
  for (let layer = 0; layer < count; layer++) {
    for (const [name, shape] of Object.entries({ ...inBoth(width), ...layersOf(width)[version] })) {
      // RWKV-LM's first layer has no part of the residual of values.
      if (layer > 0 || !/^att\.v[012]$/.test(name)) shapes.push([`blocks.${layer}.${name}`, shape]);
    }
  }
  let seed = 1;
  return new Map(
    shapes.map(([name, shape]) => {
      const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => Math.sin(seed++ * 1.7));
      return [name, storedTensor(name, [...shape], values)];
    }),
  );
}

/** Tokens of whatever needs escaping; none has the id 0. */
const texts = ["\n\n", "\t", "\r\n", "\\", "\\x41", "'", '"', "'\"", "it's", "é", "\u0000", "<s>", "a", "x"];
const vocabulary: Uint8Array[] = [];
texts.forEach((text, i) => {
  vocabulary[i + 1] = new TextEncoder().encode(text);
});
vocabulary[20] = Uint8Array.of(0xff, 0x80, 0x7f);

async function writtenGguf(
  version: string,
  tensors: ReadonlyMap<string, StoredTensor>,
  entries: Readonly<Record<string, GgufValue>> = {},
): Promise<string> {
  const path = join(await temporaryFolder(), "model.gguf");
  const model = ggufModelOf(version, tensors)!;
  const metadata = new Map<string, GgufValue>([
    ["general.architecture", { type: "string", value: model.architecture }],
  ]);
  const tokenizer = tokenizerOfTokens("made up", vocabulary);
  const { kind, tokens, types } = vocabularyOf(tokenizer, 40);
  metadata.set("tokenizer.ggml.model", { type: "string", value: kind });
  metadata.set("tokenizer.ggml.tokens", { type: "strings", value: tokens });
  metadata.set("tokenizer.ggml.token_type", { type: "int32s", value: types });
  for (const [key, value] of Object.entries(model.numbers)) {
    metadata.set(`${model.architecture}.${key}`, { type: "uint32", value });
  }
  for (const [key, value] of Object.entries(entries)) metadata.set(key, value);
  const writable = model.tensors.map(({ name, tensor }) => ({
    name,
    dtype: "f32" as const,
    shape: tensor.shape,
    bytes: () => tensorPieces(tensor, "f32"),
  }));
  await writeGguf(path, writable, metadata);
  return path;
}

async function writtenPth(tensors: ReadonlyMap<string, StoredTensor>): Promise<string> {
  const path = join(await temporaryFolder(), "model.pth");
  const writable = [...tensors].map(([name, tensor]) => ({
    name,
    dtype: "f32" as const,
    shape: tensor.shape,
    bytes: () => tensorPieces(tensor, "f32"),
  }));
  await writePth(path, writable);
  return path;
}

/** What a command says to its user. */
async function notesOf(command: () => Promise<void>): Promise<string> {
  const write = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  onTestFinished(() => write.mockRestore());
  await command();
  const notes = write.mock.calls.map(([text]) => text).join("");
  write.mockRestore();
  return notes;
}

describe.each([
  ["6", 8],
  ["7", 3],
])("RWKV-%s in GGUF", (version, count) => {
  test("is what it was when it is read again, to the bit", async () => {
    const before = official(version, count);
    const checkpoint = await openCheckpoint(await writtenGguf(version, before));
    const { tensors } = withOfficialTensors(checkpoint);
    expect([...tensors.keys()].sort()).toEqual([...before.keys()].sort());
    for (const [name, tensor] of before) {
      const found = tensors.get(name)!;
      const squeezed = ({ shape }: StoredTensor) => shape.filter((dimension) => dimension !== 1);
      expect(squeezed(found), name).toEqual(squeezed(tensor));
      expect(maxDifference(await readFloat32(found), await readFloat32(tensor)), name).toBe(0);
    }
    await checkpoint.close();
  });
});

test.each([
  ["block_count", 3, 2],
  ["embedding_length", 128, usualWidth],
  ["feed_forward_length", 4 * usualWidth, 3 * usualWidth],
])("a GGUF file whose %s is not what its tensors have is refused", async (key, value, found) => {
  const claim = { [`rwkv7.${key}`]: { type: "uint32", value } } as const;
  const checkpoint = await openCheckpoint(await writtenGguf("7", official("7", 2), claim));
  expect(() => bindModel(checkpoint)).toThrow(`its metadata say rwkv7.${key} ${value}, but the tensors have ${found}`);
  await checkpoint.close();
});

test("a GGUF file has llama.cpp's names and layouts", async () => {
  const before = official("7", 2);
  const checkpoint = await openCheckpoint(await writtenGguf("7", before));
  const values = async (name: string) => [...(await readFloat32(checkpoint.tensors.get(name)!))];
  const officialValues = async (name: string) => [...(await readFloat32(before.get(name)!))];
  expect(checkpoint.metadata).toMatchObject({
    "rwkv7.block_count": "2",
    "rwkv7.embedding_length": String(usualWidth),
    "rwkv7.feed_forward_length": String(3 * usualWidth),
    "rwkv7.wkv.head_size": String(headSize),
    "rwkv7.attention.head_count": "0",
    "rwkv7.attention.decay_lora_rank": "8",
    "rwkv7.attention.iclr_lora_rank": "9",
    "rwkv7.attention.value_residual_mix_lora_rank": "10",
    "rwkv7.attention.gate_lora_rank": "11",
  });
  const fused = checkpoint.tensors.get("blk.1.time_mix_lerp_fused.weight")!;
  expect(fused.shape).toEqual([6, 1, 1, usualWidth]);
  expect((await values(fused.name)).slice(2 * usualWidth, 3 * usualWidth)).toEqual(
    await officialValues("blocks.1.att.x_k"),
  );
  expect(checkpoint.tensors.get("blk.1.time_mix_w1.weight")!.shape).toEqual([rank, usualWidth]);
  expect(checkpoint.tensors.get("blk.1.time_mix_r_k.weight")!.shape).toEqual([usualWidth]);
  // What llama.cpp expects in the first layer.
  expect(await values("blk.0.time_mix_v0.weight")).toEqual(await values("blk.0.time_mix_a0.weight"));
  expect(await values("blk.0.time_mix_v1.weight")).toEqual(await values("blk.0.time_mix_a1.weight"));
  expect(await values("blk.0.time_mix_v2.weight")).toEqual(await values("blk.0.time_mix_a2.weight"));
  await checkpoint.close();
});

test("a GGUF file is what @huggingface/gguf reads", async () => {
  const path = await writtenGguf("7", official("7", 2));
  const [found, checkpoint] = [await gguf(path, { allowLocalFile: true }), await openCheckpoint(path)];
  const { version, tensor_count, kv_count, ...entries } = found.metadata as Record<string, unknown>;
  expect([version, Number(tensor_count), Number(kv_count)]).toEqual([3, checkpoint.tensors.size, 14]);
  for (const [key, value] of Object.entries(checkpoint.metadata)) expect(String(entries[key])).toBe(value);
  expect(entries["tokenizer.ggml.tokens"]).toEqual(checkpoint.vocabulary?.tokens);
  expect(entries["tokenizer.ggml.token_type"]).toEqual(checkpoint.vocabulary?.types);
  const start = Math.min(...[...checkpoint.tensors.values()].map(({ offset }) => offset));
  expect(
    found.tensorInfos.map(({ name, shape, dtype, offset }) => ({
      name,
      shape: shape.map(Number).reverse(),
      dtype,
      offset: Number(offset) + start,
    })),
  ).toEqual([...checkpoint.tensors.values()].map(({ name, shape, offset }) => ({ name, shape, dtype: 0, offset })));
  expect(Number(found.tensorDataOffset)).toBe(start);
  await checkpoint.close();
});

test("RWKV-6 in GGUF is divided as its hidden state is halved", async () => {
  const before = official("6", 8);
  const checkpoint = await openCheckpoint(await writtenGguf("6", before));
  expect(checkpoint.metadata["rwkv6.rescale_every_n_layers"]).toBe("6");
  for (const layer of [0, 5, 6, 7]) {
    const [stored] = await readFloat32(checkpoint.tensors.get(`blk.${layer}.time_mix_output.weight`)!);
    const [value] = await readFloat32(before.get(`blocks.${layer}.att.output.weight`)!);
    expect(stored! * 2 ** Math.floor(layer / 6)).toBe(value);
  }
  await checkpoint.close();
});

test("a vocabulary is written as Python's repr, and read again", async () => {
  const checkpoint = await openCheckpoint(await writtenGguf("7", official("7", 1)));
  const { tokens, types } = checkpoint.vocabulary!;
  expect(tokens.slice(0, 15)).toEqual([
    "<s>",
    "\\n\\n",
    "\\t",
    "\\r\\n",
    "\\\\",
    "\\\\x41",
    "'",
    '"',
    "\\'\"",
    "it's",
    "\\xc3\\xa9",
    "\\x00",
    "<s>",
    "a",
    "x",
  ]);
  expect(tokens[20]).toBe("\\xff\\x80\\x7f");
  expect(tokens[15]).toBe("[PAD15]");
  expect([types![0], types![1], types![15], types![20]]).toEqual([3, 1, 5, 1]);
  const tokenizer = tokenizerIn(checkpoint)!;
  expect(tokenizer.tokens).toEqual(vocabulary);
  expect(tokenizer.encode("<s>it's\n\n")).toEqual([12, 9, 1]);
  const texts = { kind: "rwkv", tokens: ["<s>", "a\\", "b"] };
  expect(() => tokenizerIn({ name: "file", vocabulary: texts })).toThrow(
    "file: token 1: expected at most 4096 escaped",
  );
  expect(tokenizerIn({ name: "file", vocabulary: { kind: "gpt2", tokens: ["a"] } })).toBe(undefined);
  // Without types the text of token 0, and padding at its place, are known.
  const untyped = tokenizerIn({
    name: "file",
    vocabulary: { kind: "rwkv", tokens: ["<s>", "<s>", "[PAD2]", "[PAD2]"] },
  })!;
  expect([untyped.encode("<s>"), untyped.encode("[PAD2]"), untyped.endOfText]).toEqual([[1], [3], 0]);
  await checkpoint.close();
});

test.each([
  ["q8", "Q8_0"],
  ["q4", "Q4_0"],
] as const)("groups of %s become rows of %s with the same numbers", (own, ggml) => {
  const [rows, inputs] = [11, 96];
  const values = Float32Array.from({ length: rows * inputs }, (_, i) => Math.sin(i * i));
  const group = quantizeGroup(values, inputs, own);
  const expected = new Float32Array(rows * inputs);
  dequantizeGroup(group, inputs, own, expected);
  const format = blockFormats.get(ggml)!;
  const blocks = rowsOfGroup(group, inputs, own, rows);
  expect(blocks.length).toBe(rows * format.groupSize(inputs));
  const found = new Float32Array(rows * inputs);
  for (let row = 0; row < rows; row++) {
    const size = format.groupSize(inputs);
    format.decode(
      blocks.subarray(row * size, (row + 1) * size),
      inputs,
      found.subarray(row * inputs, (row + 1) * inputs),
    );
  }
  expect(found).toEqual(expected);
});

describe("blocks of 256 are quantized", () => {
  const inputs = 512;
  const values = Float32Array.from(
    { length: 4 * inputs },
    (_, i) => Math.sin(i * i) * Math.exp(Math.sin(i / 40)) + 0.1,
  );
  const decoded = (blocks: Uint8Array, dtype: string) => {
    const format = blockFormats.get(dtype)!;
    const size = format.groupSize(inputs);
    const found = new Float32Array(values.length);
    for (let row = 0; row < 4; row++) {
      const target = found.subarray(row * inputs, (row + 1) * inputs);
      format.decode(blocks.subarray(row * size, (row + 1) * size), inputs, target);
    }
    return found;
  };

  test.each([
    ["Q4_K", 0.07],
    ["Q5_K", 0.035],
    ["Q6_K", 0.02],
  ] as const)("to %s with a relative error of at most %s", (dtype, most) => {
    const found = decoded(quantizeSuperBlocks(values, dtype), dtype);
    const squares = values.reduce((sum, value) => sum + value * value, 0);
    const errors = values.reduce((sum, value, i) => sum + (value - found[i]!) ** 2, 0);
    expect(Math.sqrt(errors / squares)).toBeLessThan(most);
    // A value that is one of a block's multiples stays what it is; so do zeros.
    expect(decoded(quantizeSuperBlocks(new Float32Array(4 * inputs), dtype), dtype).every((value) => value === 0)).toBe(
      true,
    );
    const broken = decoded(
      quantizeSuperBlocks(
        values.map((value, i) => (i === 300 ? Number.NaN : value)),
        dtype,
      ),
      dtype,
    );
    expect(broken.slice(256, 512).every(Number.isNaN)).toBe(true);
    expect(broken.filter(Number.isNaN).length).toBe(256);
  });
});

describe("rwkv convert", () => {
  const rwkv7 = fixture("rwkv7.pth");

  async function allValues(path: string): Promise<Map<string, Float32Array>> {
    const checkpoint = await openCheckpoint(path);
    const { tensors } = bindModel(checkpoint);
    const values = new Map<string, Float32Array>();
    for (const [name, tensor] of tensors) values.set(name, await readFloat32(tensor));
    await checkpoint.close();
    return values;
  }

  test("writes .gguf and back to RWKV-LM's names and shapes", async () => {
    const folder = await temporaryFolder();
    const [through, back] = [join(folder, "model.gguf"), join(folder, "back.pth")];
    await convert(rwkv7, through);
    await convert(through, back);
    const [written, original] = [await allValues(through), await allValues(rwkv7)];
    expect([...written.keys()]).toEqual([...original.keys()]);
    for (const [name, values] of written) expect(maxDifference(values, original.get(name)!), name).toBe(0);
    const [before, after] = [await openCheckpoint(rwkv7), await openCheckpoint(back)];
    for (const [name, { shape }] of after.tensors) expect(shape, name).toEqual(before.tensors.get(name)?.shape);
    for (const name of before.tensors.keys()) {
      if (!/^blocks\.0\.att\.v[012]$/.test(name)) expect(after.tensors.has(name), name).toBe(true);
    }
    for (const checkpoint of [before, after]) await checkpoint.close();
  });

  test("gives matrices the type that was asked for, and everything else float32", async () => {
    const folder = await temporaryFolder();
    const bf16 = join(folder, "bf16.gguf");
    await convert(rwkv7, bf16, { dtype: "bf16" });
    const checkpoint = await openCheckpoint(bf16);
    const typesOf = (mark: RegExp) =>
      new Set([...checkpoint.tensors.values()].filter(({ name }) => mark.test(name)).map(({ dtype }) => dtype));
    expect(checkpoint.metadata["general.file_type"]).toBe("32");
    expect(typesOf(/^(token_embd|output)\.weight|(key|value|receptance|output)\.weight$/)).toEqual(new Set(["bf16"]));
    expect(typesOf(/norm|_ln\.|lerp|time_mix_[wavgkr]_?[\dkar]\.weight/)).toEqual(new Set(["f32"]));
    await checkpoint.close();
    await expect(convert(rwkv7, join(folder, "q.safetensors"), { dtype: "Q8_0" })).rejects.toThrow("option dtype");
    await expect(convert(fixture("odd.pth"), join(folder, "odd.gguf"))).rejects.toThrow(
      "an RWKV-4 model, for which GGUF has no architecture",
    );
  });

  test.each(["Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"] as const)("quantizes to %s where rows allow it", async (dtype) => {
    const from = await writtenPth(official("7", 1, 256));
    const folder = dirname(from);
    const to = join(folder, "wide.gguf");
    expect(await notesOf(() => convert(from, to, { dtype }))).not.toContain("matrices are written as");
    const checkpoint = await openCheckpoint(to);
    const types = new Map([...checkpoint.tensors.values()].map((tensor) => [tensor.name, tensor.dtype]));
    expect(types.get("blk.0.channel_mix_value.weight")).toBe(dtype);
    expect(types.get("token_embd.weight")).toBe(dtype);
    expect(types.get("output.weight")).toBe(dtype === "Q8_0" ? "Q8_0" : "Q6_K");
    expect(types.get("blk.0.time_mix_w1.weight")).toBe("f32");
    const other = await gguf(to, { allowLocalFile: true });
    expect(other.tensorInfos.map(({ name, dtype: type }) => [name, GGMLQuantizationType[type]?.toUpperCase()])).toEqual(
      [...types].map(([name, type]) => [name, type.toUpperCase()]),
    );
    const entries = other.metadata as Record<string, unknown>;
    for (const [key, value] of Object.entries(checkpoint.metadata)) {
      expect(entries[key], key).toBe(typeof entries[key] === "number" ? Math.fround(Number(value)) : value);
    }
    const [found, exact] = [
      await readFloat32(checkpoint.tensors.get("blk.0.channel_mix_key.weight")!),
      await allValues(from).then((values) => values.get("blocks.0.ffn.key.weight")!),
    ];
    const squares = exact.reduce((sum, value) => sum + value * value, 0);
    const errors = exact.reduce((sum, value, i) => sum + (value - found[i]!) ** 2, 0);
    const most = { Q8_0: 0.006, Q4_0: 0.1, Q4_K: 0.08, Q5_K: 0.04, Q6_K: 0.02 }[dtype];
    expect(Math.sqrt(errors / squares)).toBeLessThan(most);
    await checkpoint.close();
    // As kernels read them, and back: the same numbers.
    const own = join(folder, "own.safetensors");
    const again = join(folder, "again.gguf");
    await convert(to, own);
    await convert(own, again);
    const typesIn = async (path: string) => {
      const { tensors, close } = await openCheckpoint(path);
      await close();
      return [...tensors.values()].map(({ name, dtype }) => `${name} ${dtype}`);
    };
    expect(await typesIn(again)).toEqual(await typesIn(to));
    const [one, before] = [await allValues(again), await allValues(to)];
    for (const [name, values] of one) expect(maxDifference(values, before.get(name)!), name).toBe(0);
  });

  test("says how many matrices get another type than the one asked for", async () => {
    const from = await writtenPth(official("7", 2));
    const notes = await notesOf(() => convert(from, join(dirname(from), "narrow.gguf"), { dtype: "Q4_K" }));
    // All but the head, for which Q6_K is meant: two layers with 6 matrices each, and the embedding.
    expect(notes).toContain(
      "13 of 14 matrices are written as Q8_0, since rows of Q4_K have a multiple of 256 weights\n",
    );
    expect(notes).toContain("1 of 14 matrices are written as Q8_0, since rows of Q6_K");
  });

  test("refuses a model with a part that GGUF has no place for", async () => {
    const tensors = official("6", 2);
    for (let layer = 0; layer < 2; layer++) {
      const name = `blocks.${layer}.att.time_state`;
      const shape = [usualWidth / headSize, headSize, headSize];
      tensors.set(name, storedTensor(name, shape, new Float32Array(usualWidth * headSize).fill(1)));
    }
    const from = await writtenPth(tensors);
    await expect(convert(from, join(dirname(from), "model.gguf"))).rejects.toThrow(
      "GGUF has no place for blocks.0.att.time_state (and 1 more), without which it would be another model",
    );
  });

  test("puts a tokenizer that GGUF does not hold beside the file", async () => {
    const from = await writtenPth(official("7", 1));
    const json = {
      version: "1.0",
      added_tokens: [],
      normalizer: null,
      pre_tokenizer: { type: "Whitespace" },
      post_processor: null,
      decoder: { type: "WordPiece", prefix: "##", cleanup: false },
      model: { type: "WordPiece", unk_token: "[UNK]", continuing_subword_prefix: "##", vocab: { "[UNK]": 0, a: 1 } },
    };
    await writeFile(join(dirname(from), "tokenizer.json"), JSON.stringify(json));
    const to = join(await temporaryFolder(), "model.gguf");
    await notesOf(() => convert(from, to));
    const loaded = await load(to, { backend: "reference" });
    expect(loaded.tokenizer.kind).toBe("huggingface");
    await loaded.dispose();
  });

  test.each(["pth", "safetensors", "gguf"])("keeps name and template of conversations in .%s", async (ending) => {
    const entries: Record<string, GgufValue> = {
      "general.name": { type: "string", value: "made up" },
      "tokenizer.chat_template": { type: "string", value: "Assistant: <think>" },
    };
    const to = join(await temporaryFolder(), `model.${ending}`);
    const from = await writtenGguf("7", official("7", 1), entries);
    await notesOf(() => convert(from, to));
    const loaded = await load(to, { backend: "reference" });
    expect(loaded.info.metadata).toMatchObject({ "general.name": "made up" });
    expect(chatFormatFor(loaded)).toBe("g1");
    await loaded.dispose();
  });

  test("keeps the name that tells the format of conversations where the new file has another", async () => {
    const folder = await temporaryFolder();
    const named = join(folder, "rwkv7-g1d-0.1b.pth");
    await notesOf(() => convert(rwkv7, named));
    for (const [to, metadata] of [
      ["model.safetensors", { "general.name": "rwkv7-g1d-0.1b" }],
      ["rwkv7-g1d-bf16.safetensors", {}],
    ] as const) {
      await notesOf(() => convert(named, join(folder, to)));
      const checkpoint = await openCheckpoint(join(folder, to));
      expect(checkpoint.metadata).toEqual(metadata);
      await checkpoint.close();
    }
  });

  test("a .pth that cannot hold a type names it, and what can be done", async () => {
    const from = await writtenPth(official("7", 1, 256));
    const [blocks, to] = [join(dirname(from), "blocks.gguf"), join(dirname(from), "floats.pth")];
    await notesOf(() => convert(from, blocks, { dtype: "Q4_K" }));
    await expect(convert(blocks, to)).rejects.toThrow(
      "a .pth file cannot hold Q4_K; write .safetensors or .gguf, or give --dtype f16",
    );
    await notesOf(() => convert(blocks, to, { dtype: "f16" }));
  });

  test("a .bin is PyTorch's, and the command says so", async () => {
    const to = join(await temporaryFolder(), "model.bin");
    expect(await notesOf(() => convert(rwkv7, to))).toContain("in PyTorch's format (rwkv.cpp's is only read)\n");
    const checkpoint = await openCheckpoint(to);
    expect(checkpoint.format).toBe("pth");
    await checkpoint.close();
  });
});
