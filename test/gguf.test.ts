// GGUF files and those of rwkv.cpp: what is read of them, and what a hostile one can do.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { CheckpointError, openCheckpoint, RwkvError, readFloat32 } from "rwkv";
import { describe, expect, test } from "vitest";
import { bytesSource } from "#rwkv/byte-source";
import { readDirectory } from "#rwkv/checkpoints/open-checkpoint";
import { serveFiles } from "./file-server.js";
import { temporaryFolder } from "./fixture-files.js";
import { entry, floatBytes, type GgufParts, ggml, ggmlTensor, gguf, text, u32, u64 } from "./gguf-builder.js";
import { rounds } from "./thorough.js";

const w = { name: "w", shape: [2, 3], data: floatBytes([1, 2, 3, 4, 5, 6]) };
const b = { name: "b", shape: [3], data: floatBytes([7, 8, 9]) };

describe("a GGUF file", () => {
  const sound: GgufParts = {
    entries: [
      entry.string("general.architecture", "made-up"),
      entry.uint32("made-up.block_count", 2),
      entry.float32("made-up.attention.layer_norm_epsilon", 1e-5),
      Buffer.concat([text("flag"), u32(7), Buffer.of(1)]),
      Buffer.concat([text("large"), u32(10), u64(2n ** 63n)]),
      entry.strings("tokenizer.ggml.merges", ["a b", "b c"]),
      entry.array("scores", 6, 2, Buffer.alloc(8)),
      entry.string("tokenizer.ggml.model", "rwkv"),
      entry.strings("tokenizer.ggml.tokens", ["<s>", "a", "b"]),
      entry.int32s("tokenizer.ggml.token_type", [3, 1, 1]),
    ],
    tensors: [w, b],
  };

  test.each([2, 3])("of version %s is read: tensors, metadata as texts, the vocabulary", async (version) => {
    const checkpoint = await openCheckpoint(gguf({ ...sound, version }));
    expect(checkpoint.format).toBe("gguf");
    expect(checkpoint.metadata).toEqual({
      "general.architecture": "made-up",
      "made-up.block_count": "2",
      "made-up.attention.layer_norm_epsilon": "0.00001",
      flag: "true",
      large: "9223372036854775808",
      "tokenizer.ggml.model": "rwkv",
    });
    expect(checkpoint.vocabulary).toEqual({ kind: "rwkv", tokens: ["<s>", "a", "b"], types: [3, 1, 1] });
    expect([...checkpoint.tensors.values()].map(({ name, dtype, shape }) => ({ name, dtype, shape }))).toEqual([
      { name: "w", dtype: "f32", shape: [2, 3] },
      { name: "b", dtype: "f32", shape: [3] },
    ]);
    expect([...(await readFloat32(checkpoint.tensors.get("w")!))]).toEqual([1, 2, 3, 4, 5, 6]);
    expect([...(await readFloat32(checkpoint.tensors.get("b")!))]).toEqual([7, 8, 9]);
    await checkpoint.close();
  });

  test("says its alignment itself", async () => {
    const entries = [entry.uint32("general.alignment", 8)];
    const checkpoint = await openCheckpoint(gguf({ entries, tensors: [w, b], alignment: 8 }));
    expect(checkpoint.tensors.get("b")!.offset - checkpoint.tensors.get("w")!.offset).toBe(24);
    expect([...(await readFloat32(checkpoint.tensors.get("b")!))]).toEqual([7, 8, 9]);
    await checkpoint.close();
  });

  test("is one of several: each name stands for all, in order", async () => {
    const folder = await temporaryFolder();
    const shard = (number: number, parts: GgufParts) =>
      writeFile(
        join(folder, `m-0000${number}-of-00002.gguf`),
        gguf({ ...parts, entries: [...(parts.entries ?? []), ...split(number - 1, 2)] }),
      );
    const split = (number: number, count: number) => [
      Buffer.concat([text("split.no"), u32(2), Buffer.of(number, 0)]),
      Buffer.concat([text("split.count"), u32(2), Buffer.of(count, 0)]),
    ];
    await shard(1, { entries: [entry.string("general.name", "whole")], tensors: [w] });
    await shard(2, { tensors: [b] });
    for (const path of [folder, join(folder, "m-00001-of-00002.gguf"), join(folder, "m-00002-of-00002.gguf")]) {
      const checkpoint = await openCheckpoint(path);
      expect([...checkpoint.tensors.keys()]).toEqual(["w", "b"]);
      expect(checkpoint.metadata["general.name"]).toBe("whole");
      await checkpoint.close();
    }
    const alone = join(folder, "renamed.gguf");
    await writeFile(alone, gguf({ entries: split(1, 3), tensors: [b] }));
    await expect(openCheckpoint(alone)).rejects.toThrow("this is shard 2 of 3, found where shard 1 of 1 is expected");
    await shard(2, { tensors: [w] });
    await expect(openCheckpoint(join(folder, "m-00001-of-00002.gguf"))).rejects.toThrow("occurs in another shard");
  });
});

test("GGUF on a web server is read, shards included", async () => {
  const split = (number: number) => [
    Buffer.concat([text("split.no"), u32(2), Buffer.of(number, 0)]),
    Buffer.concat([text("split.count"), u32(2), Buffer.of(2, 0)]),
  ];
  const { url, requests } = await serveFiles({
    "/m-00001-of-00002.gguf": { bytes: gguf({ entries: split(0), tensors: [b] }) },
    "/m-00002-of-00002.gguf": { bytes: gguf({ entries: split(1), tensors: [w] }) },
  });
  const checkpoint = await openCheckpoint(`${url}m-00001-of-00002.gguf`);
  expect([...checkpoint.tensors.keys()]).toEqual(["b", "w"]);
  expect([...(await readFloat32(checkpoint.tensors.get("w")!))]).toEqual([1, 2, 3, 4, 5, 6]);
  expect(requests.filter((request) => request.startsWith("GET")).length).toBe(2);
  await checkpoint.close();
});

/** The message of the error that opening ends with. */
async function errorOf(bytes: Uint8Array): Promise<string> {
  const before = process.memoryUsage();
  const error = await openCheckpoint(bytes).then(
    () => expect.fail("expected an error"),
    (reason: unknown) => reason,
  );
  const after = process.memoryUsage();
  expect(after.arrayBuffers - before.arrayBuffers).toBeLessThan(100 * 2 ** 20);
  expect(after.heapUsed - before.heapUsed).toBeLessThan(100 * 2 ** 20);
  expect(error).toBeInstanceOf(CheckpointError);
  return (error as RwkvError).message;
}

describe("hostile GGUF", () => {
  const key = (type: number, ...rest: Buffer[]) => Buffer.concat([text("key"), u32(type), ...rest]);
  const cases: readonly [title: string, message: string, parts: GgufParts][] = [
    ["version 1", "found version 1, whose lengths have 32 bits", { version: 1 }],
    ["version 4", "found version 4", { version: 4 }],
    ["a big-endian file", "found a big-endian file", { version: 3 << 24 }],
    ["2^60 tensors", "number of tensors: expected at most 2^53", { tensorCount: 2n ** 60n }],
    ["2^40 tensors", "found 1099511627776", { tensorCount: 2n ** 40n }],
    ["more tensors than there are", "tensors  and w overlap", { tensors: [w], tensorCount: 2 }],
    ["2^40 entries", "metadata entries in a file of this size", { entryCount: 2n ** 40n }],
    ["a key of 2^60 bytes", "its length: expected at most 2^53", { entries: [text("key", 2n ** 60n)] }],
    [
      "a key of 2^40 bytes",
      "expected at most 1024 bytes",
      { entries: [Buffer.concat([text("key", 2 ** 40), u32(4)])] },
    ],
    ["a text of 2^60 bytes", "metadata key: its length", { entries: [key(8, text("value", 2n ** 60n))] }],
    ["a text of 1 GiB", "expected at most 1048576 bytes", { entries: [key(8, text("value", 2 ** 30))] }],
    ["a text past the end", "truncated or damaged", { entries: [key(8, text("value", 10_000))] }],
    ["a type that is none", "expected a type of 0 to 12, found 13", { entries: [key(13, u64(0))] }],
    ["nested arrays", "found one of arrays", { entries: [entry.array("key", 9, 1, u32(9), u64(1))] }],
    ["arrays of a type that is none", "found one of type 99", { entries: [entry.array("key", 99, 1)] }],
    ["an array of 2^60 texts", "length of an array", { entries: [entry.array("key", 8, 2n ** 60n)] }],
    ["an array of 2^50 numbers", "reaches past the end", { entries: [entry.array("key", 4, 2n ** 50n)] }],
    [
      "2^21 tokens",
      "expected at most 1048576 tokens",
      { entries: [entry.array("tokenizer.ggml.tokens", 8, 2 ** 21, Buffer.alloc(2 ** 24))] },
    ],
    [
      "types of other tokens",
      "expected 2 types of tokens, found 1",
      {
        entries: [entry.strings("tokenizer.ggml.tokens", ["a", "b"]), entry.int32s("tokenizer.ggml.token_type", [1])],
      },
    ],
    ["an array of texts past the end", "truncated", { entries: [entry.array("key", 8, 1, text("v", 2 ** 40))] }],
    ["two entries of one key", "metadata a occurs twice", { entries: [entry.uint32("a", 1), entry.uint32("a", 2)] }],
    [
      "a key that is not UTF-8",
      "is not UTF-8",
      { entries: [Buffer.concat([u64(1), Buffer.of(0xff), u32(4), u32(1)])] },
    ],
    ["an alignment of 0", "expected a power of two", { entries: [entry.uint32("general.alignment", 0)] }],
    ["an alignment of 2^31", "expected a power of two", { entries: [entry.uint32("general.alignment", 2 ** 31)] }],
    ["an alignment of 3", "expected a power of two", { entries: [entry.uint32("general.alignment", 3)] }],
    ["an alignment that is text", 'found "x"', { entries: [entry.string("general.alignment", "x")] }],
    ["two tensors of one name", "there are two tensors w", { tensors: [w, w] }],
    ["tensors that overlap", "tensors b and w overlap", { tensors: [w, { ...b, offset: 0 }] }],
    ["nine dimensions", "expected at most 4 dimensions, found 9", { tensors: [{ ...w, shape: Array(9).fill(1) }] }],
    ["a dimension of 2^60", "a dimension: expected at most 2^53", { tensors: [{ ...w, shape: [2n ** 60n] }] }],
    ["2^80 elements", "more elements than can be addressed", { tensors: [{ ...w, shape: [2 ** 40, 2 ** 40] }] }],
    ["elements past the end", "expected 400 bytes at a multiple of 32", { tensors: [{ ...w, shape: [100] }] }],
    ["an offset of 2^60", "its offset: expected at most 2^53", { tensors: [{ ...w, offset: 2n ** 60n }] }],
    ["an offset past the end", "truncated or damaged", { tensors: [{ ...w, offset: 2 ** 40 }] }],
    ["an offset that is not aligned", "found offset 4", { tensors: [{ ...w, offset: 4 }] }],
    ["a type that was taken out", "its type 4 cannot be read", { tensors: [{ ...w, type: 4 }] }],
    ["a type by number", "its type 4294967295 cannot be read", { tensors: [{ ...w, type: 2 ** 32 - 1 }] }],
    [
      "IQ1_S",
      "tensor w: its type IQ1_S cannot be read; those that can are F32, F16",
      { tensors: [{ ...w, type: 19 }] },
    ],
    ["MXFP4", "its type MXFP4 cannot be read", { tensors: [{ ...w, type: 39 }] }],
  ];

  test.each(cases)("%s: %s", async (_, message, parts) => {
    expect(await errorOf(gguf(parts))).toContain(message);
  });

  test("a header of 40 MiB ends at a limit", async () => {
    const long = "x".repeat(2 ** 20 - 8);
    const entries = Array.from({ length: 40 }, (_, i) => entry.strings(`key${i}`, [long]));
    expect(await errorOf(gguf({ entries }))).toContain("its header takes more than");
  });
});

describe("files of rwkv.cpp", () => {
  const matrix = (name: string) => ggmlTensor(name, [3, 2], floatBytes([1, 2, 3, 4, 5, 6]));
  const head = matrix("head.weight");

  test.each([100, 101])("of version %s are read", async (version) => {
    const checkpoint = await openCheckpoint(ggml([3, 2, 0], [matrix("emb.weight"), head], version));
    expect(checkpoint.format).toBe("ggml");
    const tensor = checkpoint.tensors.get("emb.weight")!;
    expect(tensor.shape).toEqual([3, 2]);
    expect([...(await readFloat32(tensor))]).toEqual([1, 2, 3, 4, 5, 6]);
    await checkpoint.close();
  });

  const cases: readonly [title: string, message: string, bytes: Buffer][] = [
    ["of another version", "a ggml file", ggml([3, 2, 1], [head], 1)],
    ["with no tensors", "found 0 of such a shape and 0 of the layers among 0 tensors", ggml([3, 2, 1], [])],
    ["cut between tensors", "found 1 of such a shape and 0 of the layers among 1 tensors", ggml([3, 2, 1], [head])],
    [
      "without its last layer",
      "expected an embedding, 2 layers and a head [3, 2], found 2 of such a shape and 1 of the layers among 3 tensors",
      ggml([3, 2, 2], [matrix("emb.weight"), ggmlTensor("blocks.0.ln1.weight", [1], floatBytes([1])), head]),
    ],
    ["two of a name", "two tensors head.weight", ggml([3, 2, 1], [head, head])],
    ["no dimensions", "expected 1 to 3 dimensions, found 0", ggml([3, 2, 1], [ggmlTensor("x", [], floatBytes([1]))])],
    [
      "2^32 dimensions",
      "expected 1 to 3 dimensions, found 4294967295",
      ggml([3, 2, 1], [ggmlTensor("x", [1], floatBytes([1]), { dimensions: 2 ** 32 - 1 })]),
    ],
    [
      "a name of 4 GiB",
      "expected at most 1024 bytes",
      ggml([3, 2, 1], [ggmlTensor("x", [1], floatBytes([1]), { nameLength: 2 ** 32 - 1 })]),
    ],
    [
      "a type that was taken out",
      "its type Q4_2 cannot be read",
      ggml([3, 2, 1], [ggmlTensor("x", [32], new Uint8Array(18), { type: 5 })]),
    ],
    [
      "a type that is none",
      "its type 99 cannot be read",
      ggml([3, 2, 1], [ggmlTensor("x", [1], floatBytes([1]), { type: 99 })]),
    ],
    ["elements past the end", "expected 400 bytes", ggml([3, 2, 1], [ggmlTensor("x", [100], floatBytes([1]))])],
    [
      "2^90 elements",
      "more elements",
      ggml([3, 2, 1], [ggmlTensor("x", [2 ** 30, 2 ** 30, 2 ** 30], floatBytes([1]))]),
    ],
  ];
  test.each(cases)("that are hostile: %s: %s", async (_, message, bytes) => {
    expect(await errorOf(bytes)).toContain(message);
  });
});

describe("damaged files", () => {
  const originals = {
    gguf: gguf({
      entries: [
        entry.string("general.architecture", "rwkv"),
        entry.uint32("block_count", 1),
        entry.string("tokenizer.ggml.model", "rwkv"),
        entry.strings("tokenizer.ggml.tokens", ["<s>", "\\x00", "ab"]),
        entry.int32s("tokenizer.ggml.token_type", [3, 1, 1]),
      ],
      tensors: [w, { ...b, type: 1, data: new Uint8Array(6) }, { ...b, name: "c" }],
    }),
    ggml: ggml(
      [3, 2, 0],
      [
        ggmlTensor("emb.weight", [3, 2], floatBytes([1, 2, 3, 4, 5, 6])),
        ggmlTensor("half", [4], new Uint8Array(8), { type: 1 }),
        ggmlTensor("head.weight", [3, 2], floatBytes([1, 2, 3, 4, 5, 6])),
      ],
    ),
  };

  test.each(Object.entries(originals))("%s cut off anywhere is refused", async (_, bytes) => {
    // The padding behind the last tensor may be missing.
    const end = bytes.length - (bytes[0] === 0x47 ? 20 : 0);
    for (let length = 0; length < end; length++) {
      await expect(openCheckpoint(bytes.subarray(0, length)), `cut at ${length}`).rejects.toBeInstanceOf(
        CheckpointError,
      );
    }
  });

  test.each(Object.entries(originals))(
    "%s with changed bytes never crashes, hangs or takes much memory",
    async (name, bytes) => {
      const edits = fc.array(fc.record({ at: fc.nat(bytes.length - 1), byte: fc.nat(255) }), {
        minLength: 1,
        maxLength: 6,
      });
      const runs = rounds(500);
      let refused = 0;
      let largest = 0;
      await fc.assert(
        fc.asyncProperty(edits, async (changes) => {
          const mutated = Uint8Array.from(bytes);
          for (const { at, byte } of changes) mutated[at] = byte;
          const before = process.memoryUsage().arrayBuffers;
          try {
            const { tensors } = await readDirectory(bytesSource(name, mutated));
            for (const tensor of tensors.values()) await readFloat32(tensor);
          } catch (error) {
            if (!(error instanceof RwkvError)) throw error;
            refused++;
          }
          largest = Math.max(largest, process.memoryUsage().arrayBuffers - before);
        }),
        { numRuns: runs },
      );
      expect(refused).toBeGreaterThan(runs / 10);
      expect(largest).toBeLessThan(100 * 2 ** 20);
    },
  );
});
