// Writing checkpoints and reading them back; files past 4 GiB; views and shared storages.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { openCheckpoint, readFloat32, type WritableTensor, writePth, writeSafetensors } from "rwkv";
import { describe, expect, test } from "vitest";
import { bytesSource } from "#rwkv/checkpoints/byte-source";
import type { StoredTensor } from "#rwkv/checkpoints/checkpoint";
import { readTensorInto, tensorPieces } from "#rwkv/checkpoints/read-tensor";
import type { ElementType } from "#rwkv/dtypes";
import { fixture, readJson, temporaryFolder } from "./fixture-files.js";
import { op, pickle, tensor } from "./pickle-builder.js";
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
      { numRuns: 60 },
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
    await expect(writers[format](path, [twice, twice])).rejects.toThrow(/twice|same name/);
  });
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
