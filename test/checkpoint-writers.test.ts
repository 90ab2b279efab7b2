// Writing checkpoints and reading them back; files past 4 GiB; views and shared storages.

import { once } from "node:events";
import { existsSync, lstatSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, open, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { openCheckpoint, readFloat32, type StoredTensor, type WritableTensor, writePth, writeSafetensors } from "rwkv";
import { describe, expect, test } from "vitest";
import { bytesSource } from "#rwkv/byte-source";
import { readTensorInto, tensorPieces } from "#rwkv/checkpoints/read-tensor";
import type { ElementType } from "#rwkv/dtypes";
import { fixture, readJson, temporaryFolder } from "./fixture-files.js";
import { runScript } from "./node-process.js";
import { op, pickle, tensor } from "./pickle-builder.js";
import { rounds } from "./thorough.js";
import { buildZip } from "./zip-builder.js";

const writers = { pth: writePth, safetensors: writeSafetensors } as const;
const sizes: Record<ElementType, number> = {
  f64: 8,
  f32: 4,
  f16: 2,
  bf16: 2,
  i64: 8,
  i32: 4,
  i16: 2,
  i8: 1,
  u8: 1,
  bool: 1,
};
const dtypes = Object.keys(sizes) as ElementType[];

async function bytesOf(stored: StoredTensor): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of tensorPieces(stored, stored.dtype)) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

describe.each(["pth", "safetensors"] as const)("%s", (format) => {
  test("what is written is read back: any names, types, shapes", async () => {
    const folder = await temporaryFolder();
    const tensorArbitrary = fc
      .record({
        name: fc.string({ minLength: 1, unit: "binary" }),
        dtype: fc.constantFrom(...dtypes),
        shape: fc.array(fc.nat(5), { maxLength: 4 }),
      })
      .chain(({ name, dtype, shape }) => {
        const length = shape.reduce((a, b) => a * b, sizes[dtype]);
        return fc.record({
          name: fc.constant(`t${name}`),
          dtype: fc.constant(dtype),
          shape: fc.constant(shape),
          bytes: fc.uint8Array({ minLength: length, maxLength: length }),
        });
      });
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(tensorArbitrary, { selector: (t) => t.name, minLength: 1, maxLength: 8 }),
        async (tensors) => {
          const path = join(folder, `file.${format}`);
          await writers[format](
            path,
            tensors.map((t): WritableTensor => ({ ...t, bytes: () => [t.bytes] })),
          );
          const checkpoint = await openCheckpoint(path);
          expect(checkpoint.format).toBe(format);
          expect([...checkpoint.tensors.keys()].sort()).toEqual(tensors.map((t) => t.name).sort());
          for (const t of tensors) {
            const stored = checkpoint.tensors.get(t.name)!;
            expect(stored).toMatchObject({ dtype: t.dtype, shape: t.shape });
            expect(stored.offset % (format === "pth" ? 64 : 1)).toBe(0);
            expect(await bytesOf(stored)).toEqual(Buffer.from(t.bytes));
          }
          await checkpoint.close();
        },
      ),
      { numRuns: rounds(20) },
    );
  });

  test("a failed write leaves the old file and nothing else", async () => {
    const folder = await temporaryFolder();
    const path = join(folder, `file.${format}`);
    await writeFile(path, "old");
    const failing: WritableTensor = {
      name: "w",
      dtype: "f32",
      shape: [2],
      *bytes() {
        yield new Uint8Array(4);
        throw new Error("the disk is on fire");
      },
    };
    await expect(writers[format](path, [failing])).rejects.toThrow("on fire");
    expect(readFileSync(path, "utf8")).toBe("old");
    expect(readdirSync(folder)).toEqual([`file.${format}`]);
    await expect(writers[format](join(folder, "absent", "x"), [])).rejects.toThrow("cannot be written (ENOENT)");
    expect(existsSync(join(folder, "absent"))).toBe(false);
    const twice = { name: "w", dtype: "u8", shape: [0], bytes: () => [] } as const;
    await expect(writers[format](path, [twice, twice])).rejects.toThrow("two tensors have the same name, w");
  });

  test("tensors that are not what they claim to be make errors, and no file", async () => {
    const folder = await temporaryFolder();
    const path = join(folder, `file.${format}`);
    const w = { name: "w", dtype: "f32", shape: [2], bytes: () => [new Uint8Array(8)] } as const;
    const cases: readonly [tensor: object, message: string][] = [
      [{ bytes: () => [new Uint8Array(4)] }, "tensor w: expected 8 bytes for f32 [2], found 4"],
      [
        { bytes: () => [new Uint8Array(4), new Uint8Array(5)] },
        "tensor w: expected 8 bytes for f32 [2], found 9 or more",
      ],
      [{ bytes: () => [] }, "found 0"],
      [{ bytes: () => [[1, 2, 3, 4, 5, 6, 7, 8]] }, "found a piece that is not a typed array"],
      [{ dtype: "float32" }, "tensor w: expected an element type of f64, f32,"],
      [{ dtype: "constructor" }, "expected an element type"],
      [{ shape: [-2] }, "tensor w: expected dimensions >= 0"],
      [{ shape: [1.5] }, "expected dimensions >= 0"],
      [{ dtype: "q8" }, "tensor w: expected a matrix for q8"],
      [{ name: undefined }, "expected every tensor to have a name"],
      [{ shape: 2 }, "tensor w: expected an array of dimensions, found number"],
      [{ bytes: new Uint8Array(8) }, "tensor w: expected a function bytes, found object"],
    ];
    for (const [change, message] of cases) {
      await expect(writers[format](path, [{ ...w, ...change } as WritableTensor])).rejects.toThrow(message);
    }
    await expect(writers[format](path, { w } as never)).rejects.toThrow("option tensors: expected an array of tensors");
    await expect(writers[format](undefined as never, [w])).rejects.toThrow("option path: expected the path of a file");
    await expect(writers[format]("", [w])).rejects.toThrow("option path");
    const many = Array.from({ length: 20 }, (_, i) => ({ ...w, name: String(i).padEnd(300_000, "x") }));
    await expect(writers[format](path, many)).rejects.toThrow("expected at most");
    expect(readdirSync(folder)).toEqual([]);
  });

  test("pieces may be of any typed array", async () => {
    const path = join(await temporaryFolder(), `file.${format}`);
    const values = Float32Array.of(1, 2, 3);
    const bytes = (() => [values.subarray(0, 1), values.subarray(1)]) as unknown as WritableTensor["bytes"];
    await writers[format](path, [{ name: "w", dtype: "f32", shape: [3], bytes }]);
    const checkpoint = await openCheckpoint(path);
    expect(await readFloat32(checkpoint.tensors.get("w")!)).toEqual(values);
    await checkpoint.close();
  });

  test("metadata is written and read back", async () => {
    const path = join(await temporaryFolder(), `file.${format}`);
    const w = { name: "w", dtype: "u8", shape: [1], bytes: () => [new Uint8Array(1)] } as const;
    const metadata = { author: "Željko", __proto__x: "1", "blocks/w": "q8 1 1" };
    await writers[format](path, [w], { metadata });
    const checkpoint = await openCheckpoint(path);
    // What tells a reader of safetensors how bytes are laid out is the writer's own.
    expect(checkpoint.metadata).toMatchObject({ author: "Željko", __proto__x: "1" });
    expect(checkpoint.tensors.get("w")?.dtype).toBe("u8");
    await checkpoint.close();
  });

  test("two writes to one path at once do not mix", async () => {
    const folder = await temporaryFolder();
    const path = join(folder, `file.${format}`);
    const filled = (value: number): WritableTensor => ({
      name: "w",
      dtype: "u8",
      shape: [100_000],
      async *bytes() {
        for (let i = 0; i < 100; i++) {
          await new Promise(setImmediate);
          yield new Uint8Array(1000).fill(value);
        }
      },
    });
    const writes = Array.from({ length: 15 }, (_, i) => writers[format](path, [filled(i)]));
    await Promise.all(writes);
    const checkpoint = await openCheckpoint(path);
    const bytes = await bytesOf(checkpoint.tensors.get("w")!);
    await checkpoint.close();
    expect(new Set(bytes).size).toBe(1);
    expect(readdirSync(folder)).toEqual([`file.${format}`]);
  });
});

describe("where a file is written", () => {
  const w = { name: "w", dtype: "u8", shape: [1], bytes: () => [new Uint8Array(1)] } as const;

  test("a symbolic link stays one, and what it points to is replaced", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, "target.pth"), "old");
    await symlink("target.pth", join(folder, "link.pth"));
    await writePth(join(folder, "link.pth"), [w]);
    expect(lstatSync(join(folder, "link.pth")).isSymbolicLink()).toBe(true);
    const checkpoint = await openCheckpoint(join(folder, "target.pth"));
    await checkpoint.close();
  });

  test("a folder or device is not replaced by a file", async () => {
    const folder = await temporaryFolder();
    await mkdir(join(folder, "a.pth"));
    await expect(writePth(join(folder, "a.pth"), [w])).rejects.toThrow("expected a regular file, found a folder");
    await expect(writePth("/dev/null", [w])).rejects.toThrow("expected a regular file, found a device");
  });

  /** Begins to write 12 files into a folder and never ends; "ready" when their temporary files are there. */
  const writing = (folder: string) => `
    import { readdirSync } from "node:fs";
    const { writePth } = await import(dist + "index.js");
    const folder = ${JSON.stringify(folder)};
    const never = { name: "w", dtype: "u8", shape: [2], bytes };
    async function* bytes() { yield new Uint8Array(1); await new Promise(() => {}); }
    for (let i = 0; i < 12; i++) writePth(folder + "/" + i + ".pth", [never]).catch(() => {});
    const ready = setInterval(() => {
      if (readdirSync(folder).length < 12) return;
      clearInterval(ready);
      console.log("ready");
      begun();
    }, 10);`;

  test("a process that exits leaves no temporary files, and many writes make no warning", async () => {
    const folder = await temporaryFolder();
    const exiting = `function begun() { process.exit(0); } ${writing(folder)}`;
    expect(await runScript(exiting)).toEqual({ code: 0, signal: null, output: "ready\n", errors: "" });
    expect(readdirSync(folder)).toEqual([]);
  });

  test("a worker that exits leaves no temporary files", async () => {
    const folder = await temporaryFolder();
    const script = `const dist = ${JSON.stringify(new URL("../dist/", import.meta.url).href)};
      function begun() { process.exit(0); } ${writing(folder).replace(/import (.*) from (.*);/, "const $1 = await import($2);")}`;
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(script)}`), { stdout: true });
    await once(worker, "exit");
    expect(readdirSync(folder)).toEqual([]);
  });

  test.runIf(process.platform !== "win32").each(["SIGINT", "SIGTERM", "SIGHUP"] as const)(
    "a process that %s ends leaves no temporary files, and ends by it",
    async (signal) => {
      const folder = await temporaryFolder();
      const waiting = `function begun() { setInterval(() => {}, 1000); } ${writing(folder)}`;
      expect(await runScript(waiting, { signal })).toMatchObject({ code: null, signal, errors: "" });
      expect(readdirSync(folder)).toEqual([]);
    },
  );

  test.runIf(process.platform !== "win32")(
    "an application that handles a signal continues, and so does the write",
    async () => {
      const folder = await temporaryFolder();
      const handling = `
      function begun() { setInterval(() => {}, 1000); }
      process.once("SIGTERM", () => { console.log(readdirSync(folder).length); process.exit(3); });
      ${writing(folder)}`;
      expect(await runScript(handling, { signal: "SIGTERM" })).toMatchObject({ code: 3, output: "ready\n12\n" });
      expect(readdirSync(folder)).toEqual([]);
    },
  );
});

describe("files past 4 GiB (sparse on disk)", () => {
  const values = new Float32Array([1.5, -2, 3, 4]);
  const bytes = new Uint8Array(values.buffer);
  const hole = 2 ** 32 + 2 ** 20;

  test("pth with zip64 records", async () => {
    const path = join(await temporaryFolder(), "large.pth");
    const length = op.long(BigInt(hole / 4));
    const large = [
      op.global("torch._utils", "_rebuild_tensor_v2"),
      op.mark(),
      op.mark(),
      op.text("storage"),
      op.global("torch", "FloatStorage"),
      op.text("0"),
      op.text("cpu"),
      length,
      op.tuple(),
      op.persistentId(),
      op.int(0),
      op.mark(),
      length,
      op.tuple(),
      op.mark(),
      op.int(1),
      op.tuple(),
      op.false(),
      op.none(),
      op.tuple(),
      op.reduce(),
    ].flat();
    await buildZip(path, [
      {
        name: "m/data.pkl",
        bytes: pickle(
          op.proto(),
          op.emptyDict(),
          op.mark(),
          op.text("large"),
          large,
          op.text("small"),
          tensor("1"),
          op.setItems(),
          op.stop(),
        ),
      },
      { name: "m/data/0", hole },
      { name: "m/data/1", bytes },
    ]);
    const checkpoint = await openCheckpoint(path);
    expect(checkpoint.tensors.get("large")?.shape).toEqual([hole / 4]);
    expect(checkpoint.tensors.get("small")?.offset).toBeGreaterThan(2 ** 32);
    expect(await readFloat32(checkpoint.tensors.get("small")!)).toEqual(values);
    await checkpoint.close();
  });

  test("safetensors", async () => {
    const path = join(await temporaryFolder(), "large.safetensors");
    const header = Buffer.from(
      JSON.stringify({
        large: { dtype: "U8", shape: [hole], data_offsets: [0, hole] },
        small: { dtype: "F32", shape: [2, 2], data_offsets: [hole, hole + 16] },
      }),
    );
    const prefix = Buffer.alloc(8);
    prefix.writeBigUInt64LE(BigInt(header.length));
    const file = await open(path, "w");
    await file.write(Buffer.concat([prefix, header]), 0, 8 + header.length, 0);
    await file.write(bytes, 0, 16, 8 + header.length + hole);
    await file.close();
    const checkpoint = await openCheckpoint(path);
    expect(await readFloat32(checkpoint.tensors.get("small")!)).toEqual(values);
    await checkpoint.close();
  });
});

test("views: strides, offsets and shared storages give the elements PyTorch would", async () => {
  const plain = await openCheckpoint(fixture("odd.pth"));
  const views = await openCheckpoint(fixture("odd-views.pth"));
  expect(views.tensors.get("blocks.0.att.key.weight")?.strides).toEqual([1, 31]);
  expect(views.tensors.get("ln_out.bias")?.strides[0]).toBeGreaterThan(1);
  expect(views.tensors.get("head.weight")?.dtype).toBe("f64");
  expect(views.tensors.size).toBe(plain.tensors.size);
  for (const [name, stored] of plain.tensors) {
    expect(await readFloat32(views.tensors.get(name)!), name).toEqual(await readFloat32(stored));
  }
  await plain.close();
  await views.close();
});

test("any strided view equals element by element access", async () => {
  const storage = Float32Array.from({ length: 4096 }, (_, i) => i);
  const source = bytesSource("memory", new Uint8Array(storage.buffer));
  const dimension = fc.record({ size: fc.integer({ min: 1, max: 5 }), stride: fc.nat(60) });
  await fc.assert(
    fc.asyncProperty(fc.array(dimension, { maxLength: 4 }), fc.nat(100), async (dimensions, start) => {
      const shape = dimensions.map(({ size }) => size);
      const strides = dimensions.map(({ stride }) => stride);
      const expected: number[] = [];
      const walk = (depth: number, at: number) => {
        if (depth === shape.length) expected.push(storage[at]!);
        else for (let i = 0; i < shape[depth]!; i++) walk(depth + 1, at + i * strides[depth]!);
      };
      walk(0, start);
      const view: StoredTensor = { name: "v", dtype: "f32", shape, strides, source, offset: start * 4 };
      const values = new Float32Array(expected.length);
      await readTensorInto(view, "f32", new Uint8Array(values.buffer));
      expect([...values]).toEqual(expected);
    }),
  );
});

test("the index of shards names every tensor once", async () => {
  const index = readJson<{ weight_map: Record<string, string> }>(
    fixture("odd-hugging-face/model.safetensors.index.json"),
  );
  const checkpoint = await openCheckpoint(fixture("odd-hugging-face"));
  expect([...checkpoint.tensors.keys()].sort()).toEqual(Object.keys(index.weight_map).sort());
  expect(checkpoint.config?.["model_type"]).toBe("rwkv");
  await checkpoint.close();
});
