// Damaged and hostile checkpoints: a typed error that says what is wrong, soon, and without much memory.

import { existsSync, readFileSync } from "node:fs";
import { truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { CheckpointError, openCheckpoint, RwkvError, readFloat32 } from "rwkv";
import { describe, expect, test } from "vitest";
import { bytesSource } from "#rwkv/byte-source";
import { readDirectory } from "#rwkv/checkpoints/open-checkpoint";
import { fixture, temporaryFolder } from "./fixture-files.js";
import { op, pickle, tensor } from "./pickle-builder.js";
import { rounds } from "./thorough.js";
import { buildZip } from "./zip-builder.js";

/**
 * The error that opening and reading everything ends with; fails if it takes 100 MiB. One that hangs meets the test's time limit.
 */
async function errorOf(work: () => Promise<unknown>): Promise<RwkvError> {
  const memory = process.memoryUsage();
  const error = await work().then(
    () => expect.fail("expected an error"),
    (reason: unknown) => reason,
  );
  const after = process.memoryUsage();
  expect(after.arrayBuffers - memory.arrayBuffers).toBeLessThan(100 * 2 ** 20);
  expect(after.heapUsed - memory.heapUsed).toBeLessThan(100 * 2 ** 20);
  expect(error).toBeInstanceOf(RwkvError);
  return error as RwkvError;
}

function openError(path: string): Promise<RwkvError> {
  return errorOf(() => openCheckpoint(path));
}

/** The error of a .pth with this pickle and one storage "0" of four floats. */
async function pickleError(...parts: readonly (readonly number[])[]): Promise<string> {
  const path = join(await temporaryFolder(), "hostile.pth");
  await buildZip(path, [
    { name: "m/data.pkl", bytes: pickle(op.proto(), ...parts) },
    { name: "m/data/0", bytes: new Uint8Array(16) },
  ]);
  return (await openError(path)).message;
}

const oneTensor = (call: readonly number[]) => [op.emptyDict(), op.text("w"), call, op.setItem(), op.stop()];

describe("pickles", () => {
  test("the builder makes a checkpoint that is read", async () => {
    const path = join(await temporaryFolder(), "sound.pth");
    await buildZip(path, [
      { name: "m/data.pkl", bytes: pickle(op.proto(), ...oneTensor(tensor("0"))) },
      { name: "m/data/0", bytes: new Uint8Array(new Float32Array([1, 2, 3, 4]).buffer) },
    ]);
    const checkpoint = await openCheckpoint(path);
    expect(await readFloat32(checkpoint.tensors.get("w")!)).toEqual(new Float32Array([1, 2, 3, 4]));
    await checkpoint.close();
  });

  test("attributes of a state dict, as torch.nn.Module gives it, are passed over", async () => {
    const path = join(await temporaryFolder(), "module.pth");
    const orderedDict = [...op.global("collections", "OrderedDict"), ...op.emptyTuple(), ...op.reduce()];
    const metadata = [...op.emptyDict(), ...op.text("_metadata"), ...orderedDict, ...op.setItem()];
    const entry = [...op.text("w"), ...tensor("0"), ...op.setItem()];
    await buildZip(path, [
      { name: "m/data.pkl", bytes: pickle(op.proto(), orderedDict, entry, metadata, op.build(), op.stop()) },
      { name: "m/data/0", bytes: new Uint8Array(16) },
    ]);
    const checkpoint = await openCheckpoint(path);
    expect([...checkpoint.tensors.keys()]).toEqual(["w"]);
    await checkpoint.close();
  });

  test.each([
    ["posix", "system"],
    ["os", "system"],
    ["builtins", "eval"],
    ["builtins", "exec"],
    ["builtins", "getattr"],
    ["__builtin__", "getattr"],
    ["subprocess", "Popen"],
    ["torch", "load"],
    ["torch.hub", "load"],
    ["collections", "OrderedDict.__class__"],
    ["torch._utils", "__dict__"],
    ["__proto__", "constructor"],
  ])("%s.%s is refused by name", async (module, name) => {
    const message = await pickleError(
      op.global(module, name),
      op.text("touch hacked"),
      op.tuple1(),
      op.reduce(),
      op.stop(),
    );
    expect(message).toContain(`the pickle asks for ${module}.${name}`);
    expect(message).toContain("nothing was executed");
    const stacked = await pickleError(op.text(module), op.text(name), op.stackGlobal(), op.stop());
    expect(stacked).toContain(`${module}.${name}`);
    expect(existsSync("hacked")).toBe(false);
  });

  test("opcodes that make objects of classes are unknown, or make none", async () => {
    expect(await pickleError(op.mark(), op.inst("os", "system"), op.stop())).toContain("opcode 0x69");
    expect(await pickleError(op.mark(), op.object(), op.stop())).toContain("opcode 0x6f");
    expect(await pickleError(op.none(), op.none(), op.newObject(), op.stop())).toContain("not callable");
    expect(await pickleError(op.extension(1), op.stop())).toContain("opcode 0x82");
  });

  test("storages are not callable, nor is anything else but the known globals", async () => {
    const call = (callee: readonly number[]) => pickleError(callee, op.emptyTuple(), op.reduce(), op.stop());
    expect(await call(op.global("torch", "FloatStorage"))).toContain("calls torch.FloatStorage");
    expect(await call(op.text("os.system"))).toContain("not callable");
    expect(await call(op.emptyDict())).toContain("not callable");
    expect(await call(op.global("torch._utils", "_rebuild_tensor_v2"))).toContain("not built from a storage");
    expect(await call(op.global("torch._utils", "_rebuild_parameter"))).toContain("a parameter that is not a tensor");
  });

  test("bombs end at a limit", async () => {
    // Each list holds the one before it ten times: 10^40 leaves, were anyone to walk them.
    const laughs = Array.from({ length: 40 }, (_, i) => [
      ...op.emptyList(),
      ...op.mark(),
      ...Array.from({ length: 10 }, () => (i === 0 ? op.none() : op.get(i - 1))).flat(),
      ...op.appends(),
      ...op.put(i),
      ...op.pop(),
    ]);
    expect(await pickleError(...laughs, op.get(39), op.stop())).toContain("expected a state dict");
    const repeat = (part: readonly number[], times: number) => Array.from({ length: times }, () => part).flat();
    expect(await pickleError(repeat(op.emptyDict(), 60_000), op.stop())).toContain("containers");
    expect(await pickleError(repeat([...op.none(), ...op.tuple1()], 60_000), op.stop())).toContain("containers");
    expect(await pickleError(repeat(op.none(), 300_000), op.stop())).toContain("operations");
    expect(await pickleError(op.none(), repeat(op.dup(), 300_000), op.stop())).toContain("operations");
    const memo = Array.from({ length: 200_000 }, (_, i) => op.put(i * 20_000));
    expect(await pickleError(op.none(), memo.flat(), op.stop())).toContain("expected a state dict");
    expect(await pickleError(op.long(1n, 255), op.stop())).toContain("an integer of 255 bytes");
    // A list that holds itself.
    expect(await pickleError(op.emptyList(), op.put(0), op.get(0), op.append(), op.stop())).toContain(
      "expected a state dict",
    );
  });

  test("stack and memo mistakes are errors", async () => {
    expect(await pickleError(op.stop())).toContain("stack underflow");
    expect(await pickleError(op.append(), op.stop())).toContain("stack underflow");
    expect(await pickleError(op.tuple(), op.stop())).toContain("no mark");
    expect(await pickleError(op.get(7), op.stop())).toContain("memo 7 was never set");
    expect(await pickleError(op.none(), op.none(), op.append(), op.stop())).toContain("expected a list");
    expect(await pickleError(op.none(), op.none(), op.none(), op.setItem(), op.stop())).toContain("expected a dict");
    expect(await pickleError(op.emptyDict(), op.mark(), op.none(), op.setItems(), op.stop())).toContain(
      "key without a value",
    );
    expect(await pickleError(op.emptyDict())).toContain("truncated");
    expect(await pickleError(op.proto(9), op.none(), op.stop())).toContain("found 9");
    expect(await pickleError([0x58, 0xff, 0xff, 0xff, 0xff])).toContain("truncated");
  });

  test("tensors outside their storage are refused", async () => {
    const big = op.long(2n ** 40n);
    const cases: readonly [call: readonly number[], message: string][] = [
      [tensor("0", { offset: 1 }), "reach outside the storage"],
      [tensor("0", { offset: -1 }), "reach outside the storage"],
      [tensor("0", { shape: [op.int(5)] }), "reach outside the storage"],
      [tensor("0", { strides: [op.int(2)] }), "reach outside the storage"],
      [tensor("0", { strides: [op.int(-1)] }), "strides >= 0"],
      [tensor("0", { strides: [] }), "expected 1 strides"],
      [tensor("0", { shape: [op.int(-4)] }), "expected dimensions >= 0"],
      [tensor("0", { shape: [big, big], strides: [op.int(0), op.int(0)] }), "more elements than can be addressed"],
      [tensor("0", { shape: [op.int(1 << 30)], strides: [op.int(0)] }), "more than the whole file can hold"],
      [tensor("0", { shape: [op.text("4")] }), "expected dimensions"],
      [tensor("0", { length: 5, shape: [op.int(5)] }), "expected an entry of 20 bytes, found 16"],
      [tensor("1"), "storage 1: expected an entry of 16 bytes, found none"],
      [tensor("../data.pkl"), "found none"],
      [tensor("0", { storageClass: "ComplexFloatStorage" }), "torch.ComplexFloatStorage"],
      [tensor("0", { length: -1 }), "not a tensor's storage"],
    ];
    for (const [call, message] of cases) expect(await pickleError(...oneTensor(call))).toContain(message);
  });

  test("names from a file cannot steer the terminal that shows an error", async () => {
    const message = await pickleError(
      op.emptyDict(),
      op.text("\u001b[2J\u0007\u009b1A"),
      op.none(),
      op.setItem(),
      op.stop(),
    );
    expect(message).toContain("found a dict with the keys \uFFFD[2J\uFFFD\uFFFD1A");
    expect(message).not.toMatch(/[^\P{Cc}\n]/u);
  });

  test("what holds no tensors is said to hold none", async () => {
    expect(await pickleError(op.none(), op.stop())).toContain("expected a state dict");
    expect(await pickleError(op.emptyDict(), op.stop())).toContain("found an empty dict");
  });
});

describe("zip archives", () => {
  const data = { name: "m/data.pkl", bytes: pickle(op.proto(), ...oneTensor(tensor("0"))) };
  const storage = { name: "m/data/0", bytes: new Uint8Array(16) };
  const cases: readonly [
    title: string,
    message: string,
    ...(Parameters<typeof buildZip> extends [string, ...infer Rest] ? Rest : never),
  ][] = [
    ["entries past the end", "overlaps", [data, { ...storage, claimedSize: 2 ** 30 }]],
    ["entries of 2^60 bytes", "overlaps", [data, { ...storage, claimedSize: 2 ** 52 }]],
    ["entries that overlap", "overlaps", [data, storage, { ...storage, name: "m/data/1", claimedOffset: 0 }]],
    [
      "entries that begin nowhere",
      "no local header",
      [data, storage, { ...storage, name: "m/data/1", claimedOffset: 10 }],
    ],
    ["two entries of one name", "there are two zip entries m/data/0", [data, storage, storage]],
    ["offsets outside", "truncated or damaged", [data, { ...storage, claimedOffset: 10_000 }]],
    ["compressed entries", "expected a stored entry", [{ ...data, method: 8 }, storage]],
    ["encrypted entries", "an encrypted one", [{ ...data, flags: 1 }, storage]],
    [
      "stored entries of two sizes",
      "expected one size for a stored entry, found 5 and 16 bytes",
      [data, { ...storage, claimedCompressedSize: 5 }],
    ],
    ["no data.pkl", "without data.pkl", [storage]],
    ["a damaged pickle", "its checksum differs", [{ ...data, crc32: 1 }, storage]],
    ["a pickle of 32 MiB", "expected at most", [{ name: "m/data.pkl", hole: 32 * 2 ** 20 }]],
    ["too many entries", "damaged", [data, storage], { claimedCount: 9_000 }],
    ["a directory of 3 GiB", "expected at most", [data, storage], { claimedDirectorySize: 3 * 2 ** 30 }],
    [
      "a zip64 directory of 2^50 bytes",
      "expected at most",
      [data, storage],
      { claimedDirectorySize: 2 ** 50, zip64: true },
    ],
    ["2^50 entries", "expected at most", [data, storage], { claimedCount: 2 ** 50, zip64: true }],
    ["big-endian data", "expected little-endian", [data, storage, { name: "m/byteorder", bytes: Buffer.from("big") }]],
  ];
  test.each(cases)("%s: %s", async (_, message, entries, options) => {
    const path = join(await temporaryFolder(), "hostile.pth");
    await buildZip(path, entries, options);
    expect((await openError(path)).message).toContain(message);
  });
});

describe("safetensors", () => {
  async function headerError(
    header: string | Uint8Array,
    options: { length?: bigint; data?: number } = {},
  ): Promise<string> {
    const text = typeof header === "string" ? Buffer.from(header) : header;
    const prefix = Buffer.alloc(8);
    prefix.writeBigUInt64LE(options.length ?? BigInt(text.length));
    const path = join(await temporaryFolder(), "hostile.safetensors");
    await writeFile(path, Buffer.concat([prefix, text, Buffer.alloc(options.data ?? 16)]));
    return (await openError(path)).message;
  }
  const entry = (fields: object) =>
    JSON.stringify({ w: { dtype: "F32", shape: [4], data_offsets: [0, 16], ...fields } });

  test("headers", async () => {
    expect(await headerError("{}", { length: 2n ** 40n })).toContain("claims 1099511627776 bytes");
    expect(await headerError("{}", { length: 2n ** 63n })).toContain("claims");
    expect(await headerError("{}", { length: 1000n })).toContain("truncated");
    expect(await headerError('{"w":')).toContain("not JSON");
    expect(await headerError(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d))).toContain("not JSON in UTF-8");
    expect(await headerError(`{"a":${"[".repeat(500_000)}${"]".repeat(500_000)}}`)).toContain("nests deeper");
    expect(await headerError('{"a":'.repeat(170_000) + "}".repeat(170_000))).toContain("nests deeper");
    expect(await headerError(`{"a":[${"{},".repeat(340_000)}{}]}`)).toContain("tensor a: expected a dtype");
    expect(await headerError(`{"a":1${",[]".repeat(340_000)}}`)).toContain("not JSON");
    expect(await headerError(`{"${"x".repeat(1_000_000)}":1}`)).toContain("expected a dtype");
  });

  test("tensors", async () => {
    expect(await headerError(entry({ dtype: "F8_E4M3" }))).toContain("expected a dtype of");
    expect(await headerError(entry({ dtype: "constructor" }))).toContain("expected a dtype of");
    expect(await headerError(entry({ shape: [-4] }))).toContain("expected dimensions >= 0");
    expect(await headerError(entry({ shape: [2 ** 40, 2 ** 40] }))).toContain("more elements than can be addressed");
    expect(await headerError(entry({ shape: [5] }))).toContain("expected 20 bytes");
    expect(await headerError(entry({ shape: "4" }))).toContain("a shape");
    expect(await headerError(entry({ data_offsets: [0, 2 ** 40] }))).toContain("found range 0 to 1099511627776");
    expect(await headerError(entry({ data_offsets: [-16, 0] }))).toContain("found range -16 to 0");
    expect(await headerError(entry({ data_offsets: [16, 32] }))).toContain("found range 16 to 32");
    expect(await headerError('{"w":null}')).toContain("tensor w");
    const w = '"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}';
    expect(await headerError(`{${w},${w}}`)).toContain('the key "w" twice');
    expect(await headerError(`{${w},"\\u0077":{}}`)).toContain("twice");
    expect(await headerError(`{${w},"v":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}`)).toContain(
      "w and v overlap",
    );
  });
});

describe("other files", () => {
  test.each([
    ["an empty file", new Uint8Array(0), "the file is empty"],
    ["one byte", Uint8Array.of(0x50), "neither a PyTorch"],
    ["text", Buffer.from("hello, this is no checkpoint"), "neither a PyTorch"],
    ["a zip's first bytes", Buffer.from("PK\x03\x04"), "truncated"],
    ["the legacy magic number", readFileSync(fixture("odd-legacy.pth")).subarray(0, 15), "truncated"],
  ])("%s", async (_, bytes, message) => {
    const path = join(await temporaryFolder(), "file");
    await writeFile(path, bytes);
    expect((await openError(path)).message).toContain(message);
  });

  test("missing files, folders without a checkpoint, indexes that lead elsewhere", async () => {
    const folder = await temporaryFolder();
    expect((await openError(join(folder, "absent.pth"))).message).toContain("no such file");
    expect((await openError(folder)).message).toContain("no checkpoint");
    const index = join(folder, "model.safetensors.index.json");
    await writeFile(index, JSON.stringify({ weight_map: { w: "../../etc/passwd" } }));
    expect((await openError(index)).message).toContain("beside the index");
    await writeFile(index, JSON.stringify({ weight_map: { w: "absent.safetensors" } }));
    expect((await openError(index)).message).toContain("absent.safetensors: no such file");
    await writeFile(index, "{");
    expect((await openError(index)).message).toContain("not valid JSON");
  });

  test.each(["odd.pth", "odd-legacy.pth", "odd-hugging-face/model-00001-of-00002.safetensors"])(
    "%s cut off anywhere is refused",
    async (name) => {
      const bytes = readFileSync(fixture(name));
      const path = join(await temporaryFolder(), "cut");
      const positions = new Set<number>();
      for (let i = 0; i < 60; i++) positions.add(Math.floor((bytes.length * i) / 60));
      for (let i = 1; i < 30; i++) positions.add(bytes.length - i).add(i);
      await writeFile(path, bytes);
      for (const position of [...positions].sort((a, b) => b - a)) {
        await truncate(path, position);
        expect(await openError(path), `cut at ${position}`).toBeInstanceOf(CheckpointError);
      }
    },
  );
});

describe("mutations", () => {
  const originals = [
    "odd.pth",
    "odd-legacy.pth",
    "odd-views.pth",
    "odd-hugging-face/model-00001-of-00002.safetensors",
  ].map((name) => {
    const bytes = readFileSync(fixture(name));
    return { name, bytes, directory: name.endsWith(".pth") && !name.includes("legacy") ? bytes.length - 4000 : 0 };
  });
  /** Changes: mostly in the directory (pickle, header, zip records), where they matter. */
  const mutation = fc.record({
    which: fc.nat(originals.length - 1),
    edits: fc.array(fc.record({ at: fc.nat(6000), byte: fc.nat(255), fromEnd: fc.boolean() }), {
      minLength: 1,
      maxLength: 6,
    }),
    cut: fc.option(fc.nat(100), { freq: 8 }),
  });

  test("never crash, hang or take much memory", async () => {
    const runs = rounds(1000);
    let refused = 0;
    let largest = 0;
    await fc.assert(
      fc.asyncProperty(mutation, async ({ which, edits, cut }) => {
        const { name, bytes } = originals[which]!;
        const mutated = Uint8Array.from(cut === null ? bytes : bytes.subarray(0, bytes.length - cut));
        for (const { at, byte, fromEnd } of edits)
          mutated[(fromEnd ? mutated.length - 1 - at : at) % mutated.length] = byte;
        const before = process.memoryUsage().arrayBuffers;
        try {
          const { tensors } = await readDirectory(bytesSource(name, mutated));
          for (const tensor of tensors.values()) await readFloat32(tensor);
        } catch (error) {
          if (!(error instanceof CheckpointError)) throw error;
          refused++;
        }
        largest = Math.max(largest, process.memoryUsage().arrayBuffers - before);
      }),
      { numRuns: runs },
    );
    expect(refused).toBeGreaterThan(runs / 10);
    expect(largest).toBeLessThan(100 * 2 ** 20);
  });
});
