// Matrices that are converted as they are loaded: the kernel against the plain form, to the bit.

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { StoredTensor } from "rwkv";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Converter } from "#rwkv/backends/kernel/converter";
import { createNativeMachine, supportedLevels } from "#rwkv/backends/native/native";
import type { ByteSource } from "#rwkv/byte-source";
import { readTensorInto } from "#rwkv/checkpoints/read-tensor";
import { bytesPerElement, type FloatType } from "#rwkv/dtypes";
import { fileSource } from "#rwkv/platform/node/files";
import { randomGenerator } from "#rwkv/sampling/random";

const [outputs, inputs] = [37, 251]; // more than two shares, and a part of a vector
const count = outputs * inputs;
const stored = ["f64", "f32", "f16", "bf16"] as const;
const computed: readonly FloatType[] = ["f32", "f16", "bf16"];

let folder = "";
const sources = new Map<string, ByteSource>();
const levels = process.env["TESTED_LEVELS"]?.split(",") ?? (await supportedLevels());

/** Every kind of number: any bits at all, and numbers next to where rounding turns over, in float16 and bfloat16. */
function bytesOf(dtype: (typeof stored)[number]): Uint8Array {
  const random = randomGenerator(3);
  const bits = () => Math.floor(random.uniform() * 2 ** 32);
  if (dtype === "f16" || dtype === "bf16") {
    return new Uint8Array(Uint16Array.from({ length: count }, (_, i) => (i * 7) % 65536).buffer);
  }
  const edges = [
    0,
    -0,
    Number.POSITIVE_INFINITY,
    Number.NaN,
    65504,
    65519.99,
    65520,
    65536,
    2 ** -24,
    2 ** -25,
    2 ** -26,
  ];
  const values = Float64Array.from({ length: count }, (_, i) => {
    if (i < edges.length) return edges[i] as number;
    const [word, half] = [new Uint32Array([bits()]), Math.floor(random.uniform() * 65536)];
    const exponent = Math.floor(random.uniform() * 50) - 30;
    const any = new Float32Array(word.buffer)[0] as number;
    // Halfway between two of bfloat16, and of float16, or a little beside.
    const near = (1 + half / 128 + (i % 3) * 2 ** -30) * 2 ** exponent;
    const nearer = (1 + half / 2048 + (i % 3) * 2 ** -40) * 2 ** exponent;
    return [any, near, nearer, -nearer][i % 4] as number;
  });
  return new Uint8Array(dtype === "f64" ? values.buffer : Float32Array.from(values).buffer);
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rwkv-"));
  for (const dtype of stored) {
    const path = join(folder, dtype);
    // 8 bytes before, as in a file whose first tensor it is not
    await writeFile(path, [new Uint8Array(8), bytesOf(dtype)]);
    sources.set(dtype, await fileSource(path));
  }
});
afterAll(async () => {
  for (const source of sources.values()) await source.close();
  await rm(folder, { recursive: true, force: true });
});

/** Where both have a NaN, the same one. */
function withoutNans(bytes: Uint8Array, dtype: FloatType): Uint8Array {
  const copy = bytes.slice();
  if (dtype === "f32") {
    const words = new Uint32Array(copy.buffer);
    words.set(words.map((word) => ((word & 0x7fffffff) > 0x7f800000 ? 0x7fc00000 : word)));
  } else {
    const halves = new Uint16Array(copy.buffer);
    const infinite = dtype === "f16" ? 0x7c00 : 0x7f80;
    halves.set(halves.map((half) => ((half & 0x7fff) > infinite ? 0x7fff : half)));
  }
  return copy;
}

describe.each(levels)("%s", (level) => {
  const pairs = stored.flatMap((from) => computed.map((to) => [from, to] as const));
  it.each(pairs)("%s to %s", async (from, to) => {
    const source = sources.get(from) as ByteSource;
    const shape = [outputs, inputs];
    const tensor: StoredTensor = { name: "x", dtype: from, shape, strides: [inputs, 1], source, offset: 8 };
    const machine = await createNativeMachine(2, level);
    expect(machine.map(source)).toBeGreaterThan(0);
    const size = count * bytesPerElement[to];
    const [block, beyond] = [machine.allocate(size), machine.allocate(64)];
    beyond.bytes.fill(9);
    await new Converter(machine).convert(tensor, to, block);
    const expected = new Uint8Array(size);
    await readTensorInto(tensor, to, expected);
    expect(Buffer.compare(withoutNans(block.bytes.slice(), to), withoutNans(expected, to))).toBe(0);
    expect(beyond.bytes).toEqual(new Uint8Array(64).fill(9));
    await machine.dispose();
  });
});
