// Training on tokens that other tools made: RWKV-LM's binidx, and files that only claim to be one.

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { TrainingError } from "rwkv";
import { type TrainOptions, train } from "rwkv/training";
import { beforeEach, describe, expect, test } from "vitest";
import { byteTokenizer } from "#rwkv/tokenizers/bytes";
import { readBinidx, tokenizedDataset } from "#rwkv/training/binidx";
import { rwkv } from "./command.js";
import { temporaryFolder } from "./fixture-files.js";
import { rounds } from "./thorough.js";

let folder = "";
beforeEach(async () => {
  folder = await temporaryFolder();
});
const path = (name: string) => join(folder, name);

type Code = 1 | 2 | 3 | 4 | 5 | 8;
const bytesOf: Readonly<Record<Code, number>> = { 1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 8: 2 };

/** The bytes of both files. */
function binidx(documents: readonly (readonly number[])[], code: Code = 8): { bin: Buffer; idx: Buffer } {
  const size = bytesOf[code];
  const tokens = documents.flat();
  const bin = Buffer.alloc(tokens.length * size);
  tokens.forEach((token, i) => {
    if (size === 8) bin.writeBigInt64LE(BigInt(token), 8 * i);
    else if (token < 0) bin.writeIntLE(token, size * i, size);
    else bin.writeUIntLE(token, size * i, size);
  });
  const idx = Buffer.alloc(34 + 12 * documents.length + 8 * (documents.length + 1));
  idx.write("MMIDIDX\0\0", 0, "latin1");
  idx.writeBigUInt64LE(1n, 9);
  idx[17] = code;
  idx.writeBigUInt64LE(BigInt(documents.length), 18);
  idx.writeBigUInt64LE(BigInt(documents.length + 1), 26);
  let start = 0;
  documents.forEach(({ length }, i) => {
    idx.writeInt32LE(length, 34 + 4 * i);
    idx.writeBigInt64LE(BigInt(start), 34 + 4 * documents.length + 8 * i);
    start += length * size;
  });
  for (let i = 0; i <= documents.length; i++) idx.writeBigInt64LE(BigInt(i), 34 + 12 * documents.length + 8 * i);
  return { bin, idx };
}

async function written(
  { bin, idx }: { bin: Buffer; idx: Buffer },
  name = "data",
): Promise<{ bin: string; idx: string }> {
  await writeFile(path(`${name}.bin`), bin);
  await writeFile(path(`${name}.idx`), idx);
  return { bin: path(`${name}.bin`), idx: path(`${name}.idx`) };
}

const text = "The fox ran over the hill, and the hen ran after the fox. ".repeat(12);
const tokens = [...Buffer.from(text)];

test.each([1, 3, 4, 5, 8] as const)("tokens of type %s are read as they were written", async (code) => {
  const documents = [[1, 2, 3, 0], [], [100, 127, 0]];
  const read = await readBinidx(await written(binidx(documents, code)), 128);
  expect([...read.tokens]).toEqual(documents.flat());
  expect([...read.sizes]).toEqual([4, 0, 3]);
});

describe("training", () => {
  const small = { tokenizer: "bytes", layers: 1, width: 16, context: 16, batch: 2, steps: 4, validation: 0 } as const;
  const run = (name: string, options: Partial<TrainOptions> & { data: string }) =>
    train({ ...small, out: path(name), ...options });

  test("gives the same model as the text, by any of the names of the files", async () => {
    await writeFile(path("tale.txt"), text);
    await written(binidx([tokens]));
    const expected = await run("text", { data: path("tale.txt") });
    const model = await readFile(path("text/model.safetensors"));
    for (const name of ["data", "data.bin", "data.idx"]) {
      const result = await run(`of-${name}`, { data: path(name) });
      expect(result.loss).toBe(expected.loss);
      expect((await readFile(path(`of-${name}/model.safetensors`))).equals(model), name).toBe(true);
    }
  });

  test("by the command, resumed with the same tokens only, held out and measured", async () => {
    await written(binidx([tokens]));
    const options = ["--tokenizer", "bytes", "--layers", "1", "--width", "16", "--context", "16", "--batch", "2"];
    const begun = await rwkv(["train", "--data", path("data"), "--out", path("run"), ...options, "--steps", "2"]);
    expect([begun.code, begun.stderr]).toEqual([0, expect.stringMatching(/held out/)]);
    const resumed = await rwkv(["train", "--data", path("data"), "--out", path("run"), "--resume", "--steps", "3"]);
    expect(resumed.code).toBe(0);
    await written(binidx([tokens.toReversed()]));
    const other = await rwkv(["train", "--data", path("data"), "--out", path("run"), "--resume", "--steps", "4"]);
    expect([other.code, other.stderr]).toEqual([
      1,
      expect.stringMatching(/expected the data that the run .* was started with/),
    ]);
  });

  test("needs the tokenizer that the tokens were made with", async () => {
    await written(binidx([tokens]));
    const { tokenizer: _, ...without } = small;
    await expect(train({ ...without, data: path("data"), out: path("run") })).rejects.toThrow(
      /holds tokens, not text: name the tokenizer/,
    );
    await written(binidx([[1, 2, 300]]));
    await expect(run("run", { data: path("data") })).rejects.toThrow(
      /data.bin: token 2: expected an id from 0 to 255, found 300/,
    );
    await written(binidx([[1, 2, -5]], 4));
    await expect(run("run", { data: path("data") })).rejects.toThrow(/token 2: expected an id from 0 to 255, found -5/);
    await written(binidx([[1, 2, 3]]));
    await expect(run("run", { data: path("data") })).rejects.toThrow(/expected at least 17 tokens/);
  });
});

test("the last documents are held out, each after the end of a text", async () => {
  const tokenizer = { ...byteTokenizer(), endOfText: 0 };
  const documents = Array.from({ length: 300 }, (_, i) => [65, 66, 67 + (i % 20), 0]);
  const data = await readBinidx(await written(binidx(documents)), 256);
  const { tokens, heldOut, bytesPerToken } = tokenizedDataset(data, tokenizer, 0.1, 8);
  expect(tokens.length).toBe(270 * 4);
  expect(heldOut.length).toBe(30);
  expect(heldOut[0]).toEqual({ tokens: Int32Array.of(0, 65, 66, 67 + 10), bytes: 3 });
  expect(bytesPerToken).toBe(0.75);
  const few = tokenizedDataset({ ...data, sizes: Int32Array.of(1200) }, tokenizer, 0.25, 8);
  expect([few.tokens.length, few.heldOut.length, few.heldOut[0]!.tokens.length]).toEqual([900, 1, 300]);
});

describe("files that are none are refused", () => {
  const good = binidx([
    [1, 2, 3],
    [4, 5],
  ]);
  const changed = (change: (idx: Buffer) => void) => {
    const idx = Buffer.from(good.idx);
    change(idx);
    return { bin: good.bin, idx };
  };
  test.each<[string, { bin: Buffer; idx: Buffer }, RegExp]>([
    [
      "another file",
      { ...good, idx: Buffer.from("text ".repeat(20)) },
      /data.idx: expected the index of a binidx .* found another file/,
    ],
    ["nothing", { ...good, idx: Buffer.alloc(0) }, /found 0 bytes/],
    ["a version", changed((idx) => idx.writeBigUInt64LE(2n, 9)), /expected version 1, found 2/],
    ["floats", changed((idx) => (idx[17] = 7)), /expected tokens of an integer type .* found type 7/],
    ["2^60 items", changed((idx) => idx.writeBigUInt64LE(2n ** 60n, 18)), /expected Infinity bytes|items/],
    ["2^32 items", changed((idx) => idx.writeBigUInt64LE(2n ** 32n, 18)), /expected \d+ bytes for 4294967296 items/],
    ["2^63 entries", changed((idx) => idx.writeBigUInt64LE(2n ** 63n, 26)), /data.idx: expected/],
    ["a negative size", changed((idx) => idx.writeInt32LE(-1, 34)), /expected a number of tokens for item 0, found -1/],
    [
      "a size past the end",
      changed((idx) => idx.writeInt32LE(2 ** 31 - 1, 38)),
      /data.bin: expected 4294967300 bytes, as .* found 10/,
    ],
    ["a place elsewhere", changed((idx) => idx.writeBigInt64LE(4n, 50)), /expected item 1 at byte 6, .* found 4/],
    [
      "an entry past the end",
      changed((idx) => idx.writeBigInt64LE(9n, 34 + 24 + 8)),
      /document 1 to begin at an item from 0 to 2, found 9/,
    ],
    [
      "too short a file",
      { ...good, bin: good.bin.subarray(0, 9) },
      /data.bin: expected 10 bytes, as .*data.idx tells, found 9/,
    ],
  ])("%s", async (_, files, message) => {
    const result = readBinidx(await written(files), 256);
    await expect(result).rejects.toThrow(TrainingError);
    await expect(result).rejects.toThrow(message);
  });

  test("whatever bytes are changed or cut, it is read or refused", async () => {
    const property = fc.asyncProperty(
      fc.nat(good.idx.length - 1),
      fc.nat(255),
      fc.boolean(),
      async (at, byte, cuts) => {
        const idx = cuts ? good.idx.subarray(0, at) : Buffer.from(good.idx);
        if (!cuts) idx[at] = byte;
        const result = await readBinidx(await written({ bin: good.bin, idx }), 256).catch((error) => error);
        if (result instanceof Error) expect(result).toBeInstanceOf(TrainingError);
        else expect(result.tokens.length).toBe(result.sizes.reduce((sum: number, size: number) => sum + size, 0));
      },
    );
    await fc.assert(property, { numRuns: rounds(50) });
  });

  test("a .bin without its .idx is a text like any other", async () => {
    await writeFile(path("only.bin"), text);
    const { loss } = await train({
      data: path("only.bin"),
      out: path("run"),
      tokenizer: "bytes",
      layers: 1,
      width: 16,
      context: 16,
      batch: 1,
      steps: 1,
    });
    expect(loss).toBeGreaterThan(0);
  });
});
