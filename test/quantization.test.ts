// Matrices in blocks: the numbers of ggml's formats, the same from every kernel, kept by files, close to what they stand for.

import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import fc from "fast-check";
import { load, openCheckpoint, openTokenizer, readFloat32, StateError, writePth } from "rwkv";
import { describe, expect, test } from "vitest";
import { Quantizer } from "#rwkv/backends/kernel/quantizer";
import { createNativeMachine, supportedLevels } from "#rwkv/backends/native/native";
import { createWasmMachine } from "#rwkv/backends/wasm/wasm";
import { median } from "#rwkv/bench/median";
import { bytesSource } from "#rwkv/byte-source";
import { contiguousStrides, type StoredTensor } from "#rwkv/checkpoints/checkpoint";
import { tensorPieces } from "#rwkv/checkpoints/read-tensor";
import { bytesPerElement, convertElements, type FloatType, float16Value } from "#rwkv/dtypes";
import {
  dequantizeGroup,
  fitGroup,
  groupOutputs,
  groupSize,
  quantizeGroup,
  roundTripRow,
} from "#rwkv/quantization/blocks";
import { storedSize } from "#rwkv/quantization/storage-types";
import { randomGenerator } from "#rwkv/sampling/random";
import { fixture, maxDifference, readJson, temporaryFolder } from "./fixture-files.js";
import { randomBlocks } from "./random-blocks.js";
import { rewrite } from "./rewritten-checkpoints.js";
import { isThorough, rounds } from "./thorough.js";

const block = fc.array(fc.float({ min: -8, max: 8, noNaN: true }), { minLength: 32, maxLength: 32 });
const { tokens } = readJson<{ tokens: number[] }>(fixture("tokens.json"));

/** The scale and integers of one row's first block, read by the layout that kernels/quantized.h describes. */
function firstBlock(group: Uint8Array, row: number, dtype: "q8" | "q4"): { scale: number; quants: number[] } {
  const view = new DataView(group.buffer);
  const quants = Array.from({ length: 32 }, (_, i) => {
    if (dtype === "q8") return view.getInt8(64 + Math.floor(i / 4) * 64 + row * 4 + (i % 4));
    const byte = group[64 + Math.floor((i % 16) / 4) * 64 + row * 4 + (i % 4)]!;
    return (i < 16 ? byte & 15 : byte >> 4) - 8;
  });
  return { scale: float16Value(view.getUint16(row * 2, true)), quants };
}

const squaredError = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((sum, value, i) => sum + (value - b[i]!) ** 2, 0);

test("q8 has the scale and integers of ggml's Q8_0", () => {
  fc.assert(
    fc.property(block, (values) => {
      const w = Float32Array.from(values);
      const { scale, quants } = firstBlock(quantizeGroup(w, 32, "q8"), 0, "q8");
      const exact = Math.fround(Math.max(...w.map(Math.abs)) / 127);
      expect(Math.abs(scale - exact)).toBeLessThanOrEqual(exact * 2 ** -11 + 2 ** -25);
      const inverse = exact > 0 ? Math.fround(1 / exact) : 0;
      quants.forEach((quant, i) => {
        const scaled = Math.fround(w[i]! * inverse);
        // Halves to even, as ggml's vector code has it.
        const nearest = scaled % 1 === 0.5 || scaled % 1 === -0.5 ? 2 * Math.round(scaled / 2) : Math.round(scaled);
        expect(quant).toBe(nearest || 0);
      });
    }),
  );
});

test("q4 never fits a block worse than ggml's rounding, and often better", () => {
  let better = 0;
  const runs = rounds(150);
  fc.assert(
    fc.property(block, (values) => {
      const w = Float32Array.from(values);
      const found = new Float32Array(32);
      dequantizeGroup(quantizeGroup(w, 32, "q4"), 32, "q4", found);
      const extreme = w.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0);
      const scale = extreme / -8;
      const ggml = w.map((value) => scale * (Math.min(15, Math.trunc((scale ? value / scale : 0) + 8.5)) - 8));
      // The scale is rounded to binary16, which can cost a little.
      const rounding = squaredError(w, new Float32Array(32)) * 2 ** -10 + 1e-12;
      expect(squaredError(w, found)).toBeLessThanOrEqual(squaredError(w, ggml) + rounding);
      if (squaredError(w, found) < 0.95 * squaredError(w, ggml)) better++;
    }),
    { numRuns: runs },
  );
  expect(better).toBeGreaterThan(runs / 4);
});

test("a group's rows are where the layout says, and missing rows and inputs are zeros", () => {
  const random = randomGenerator(3);
  for (const [rows, inputs] of [
    [1, 1],
    [3, 31],
    [16, 65],
    [5, 130],
  ] as const) {
    for (const dtype of ["q8", "q4"] as const) {
      const w = Float32Array.from({ length: rows * inputs }, () => random.uniform() - 0.5);
      const group = quantizeGroup(w, inputs, dtype);
      expect(group.length).toBe(groupSize(dtype, inputs));
      const all = new Float32Array(groupOutputs * inputs);
      dequantizeGroup(group, inputs, dtype, all);
      // Half a step of q8; q4 may cut off the largest magnitudes where that serves the others.
      const step = dtype === "q8" ? (0.5 / 127) * 0.52 : 0.07;
      expect(maxDifference(all.subarray(0, w.length), w), `${rows}x${inputs}`).toBeLessThan(step);
      expect(all.subarray(w.length).every((value) => value === 0)).toBe(true);
      for (let row = 0; row < rows; row++) {
        const { scale, quants } = firstBlock(group, row, dtype);
        quants.slice(0, inputs).forEach((quant, i) => expect(all[row * inputs + i]).toBe(Math.fround(scale * quant)));
      }
    }
  }
});

describe("kernels make the same blocks, to the bit", async () => {
  const machines = [
    ...(await supportedLevels()).map((level) => [`native (${level})`, () => createNativeMachine(2, level)] as const),
    ["wasm", () => createWasmMachine(2)] as const,
  ];
  const special = [Number.NaN, Number.POSITIVE_INFINITY, 0, 1e-30, -3e38, 7e-9, 65504 * 200];

  test.each(machines)("%s", async (_, create) => {
    const machine = await create();
    const quantizer = new Quantizer(machine);
    const random = randomGenerator(5);
    for (const [outputs, inputs] of [
      [1, 1],
      [3, 31],
      [16, 64],
      [33, 65],
      [40, 3000],
    ] as const) {
      for (const type of ["f32", "bf16", "f16"] as const) {
        const values = Float32Array.from({ length: outputs * inputs }, () => (random.uniform() - 0.5) ** 3);
        // Zeros, subnormal scales, and what is not finite, each in a row of its own.
        special.forEach((value, i) => {
          if (i + 3 < outputs) values.fill(value, (i + 3) * inputs, (i + 3) * inputs + 40);
        });
        const tensor = stored(values, [outputs, inputs], type);
        const exact = await readFloat32(tensor);
        for (const dtype of ["q8", "q4"] as const) {
          const room = machine.allocate(storedSize(dtype, [outputs, inputs]));
          room.bytes.fill(0xaa);
          await quantizer.quantize(tensor, dtype, room.address);
          for (let row = 0; row < outputs; row += groupOutputs) {
            const expected = quantizeGroup(exact.subarray(row * inputs, (row + groupOutputs) * inputs), inputs, dtype);
            const at = (row / groupOutputs) * expected.length;
            expect(
              Buffer.compare(room.bytes.subarray(at, at + expected.length), expected),
              `${outputs}x${inputs}`,
            ).toBe(0);
          }
        }
      }
    }
    await machine.dispose();
  });

  test.each(machines)("of other blocks: %s", async (_, create) => {
    const machine = await create();
    const quantizer = new Quantizer(machine);
    const [outputs, inputs] = [37, 512];
    for (const name of ["Q4_1", "Q5_1", "Q2_K", "IQ4_XS"] as const) {
      const tensor = randomBlocks("w", name, [outputs, inputs], 7);
      const values = await readFloat32(tensor);
      const room = machine.allocate(storedSize("q8", [outputs, inputs]));
      await quantizer.quantize(tensor, "q8", room.address);
      for (let row = 0; row < outputs; row += groupOutputs) {
        const expected = fitGroup(values.subarray(row * inputs, (row + groupOutputs) * inputs), inputs);
        const at = (row / groupOutputs) * expected.length;
        expect(Buffer.compare(room.bytes.subarray(at, at + expected.length), expected), name).toBe(0);
      }
    }
    await machine.dispose();
  });
});

function stored(values: Float32Array, shape: readonly number[], dtype: FloatType): StoredTensor {
  const bytes = new Uint8Array(values.length * bytesPerElement[dtype]);
  convertElements(new Uint8Array(values.buffer), "f32", bytes, dtype);
  return { name: "w", dtype, shape, strides: contiguousStrides(shape), source: bytesSource("w", bytes), offset: 0 };
}

test("a row of x keeps what is not finite, and zeros", () => {
  expect([...roundTripRow(new Float32Array(40))]).toEqual(new Array(40).fill(0));
  const row = new Float32Array(64).fill(1);
  row[40] = Number.POSITIVE_INFINITY;
  expect(
    roundTripRow(row)
      .subarray(0, 32)
      .every((value) => Math.abs(value - 1) < 1e-6),
  ).toBe(true);
  expect(roundTripRow(row).subarray(32).every(Number.isNaN)).toBe(true);
});

async function logitsOf(
  path: string | undefined,
  options: Parameters<typeof load>[1],
  ids: readonly number[] = tokens,
) {
  const model = await load(path, options);
  const state = model.createState();
  const [logits] = await model.forward([{ state, tokens: ids, logits: "all" }]);
  const { dtype } = model.info;
  await model.dispose();
  return { logits: logits as Float32Array, dtype };
}

const rwkv = (...args: string[]) =>
  promisify(execFile)("node", [fileURLToPath(new URL("../dist/cli/main.js", import.meta.url)), ...args]);

describe.each(["q8", "q4"] as const)("%s", (dtype) => {
  test("converted ahead is what quantizing at load gives, on every backend", async () => {
    const path = join(await temporaryFolder(), "blocks.safetensors");
    await rwkv("convert", fixture("odd.pth"), path, "--dtype", dtype);
    const checkpoint = await openCheckpoint(path);
    const types = Object.fromEntries([...checkpoint.tensors].map(([name, tensor]) => [name, tensor.dtype]));
    await checkpoint.close();
    expect(types).toMatchObject({
      "emb.weight": "f32",
      "head.weight": "q8",
      "blocks.0.att.key.weight": dtype,
      "blocks.1.ffn.value.weight": dtype,
      "blocks.0.att.time_decay": "f32",
    });
    const expected = await logitsOf(fixture("odd.pth"), { backend: "reference", dtype });
    for (const backend of ["reference", "native", "wasm"] as const) {
      const ahead = await logitsOf(path, { backend });
      const atLoad = await logitsOf(fixture("odd.pth"), { backend, dtype });
      expect([ahead.dtype, atLoad.dtype]).toEqual([dtype, dtype]);
      expect(maxDifference(ahead.logits, atLoad.logits), backend).toBe(0);
      // An integer of x can fall to the other side where two backends differ in the last bit before rounding; that is a step of
      // its block, and goes on in the state. Most tokens are free of it.
      const width = expected.logits.length / tokens.length;
      const differences = tokens.map((_, t) => {
        const row = (logits: Float32Array) => logits.subarray(t * width, (t + 1) * width);
        return maxDifference(row(ahead.logits), row(expected.logits));
      });
      expect(Math.max(...differences), backend).toBeLessThan(0.05);
      expect(median(differences), backend).toBeLessThan(1e-5);
    }
    // The weights are also there as floats: the same but for the rounding of x.
    const floats = await logitsOf(path, { backend: "native", dtype: "f32" });
    expect(maxDifference(floats.logits, expected.logits)).toBeLessThan(0.2);
    expect(maxDifference(floats.logits, expected.logits)).toBeGreaterThan(0);
    // A second conversion keeps the blocks; another type is made of their values.
    const copy = join(await temporaryFolder(), "copy.safetensors");
    await rwkv("convert", path, copy);
    expect(Buffer.compare(await readFile(copy), await readFile(path))).toBe(0);
    await rwkv("convert", path, join(copy, "../floats.pth"), "--dtype", "f32");
    expect((await logitsOf(join(copy, "../floats.pth"), { backend: "native" })).logits).toEqual(floats.logits);
  });

  test("token by token, in one prompt, and on any number of threads the logits are the same to the bit", async () => {
    const serial = await load(fixture("odd.pth"), { backend: "native", dtype, threads: 1 });
    const state = serial.createState();
    const one: number[] = [];
    for (const token of tokens) {
      const [logits] = await serial.forward([{ state, tokens: [token] }]);
      one.push(...(logits as Float32Array));
    }
    await serial.dispose();
    const { logits } = await logitsOf(fixture("odd.pth"), { backend: "native", dtype, threads: 3 });
    expect(maxDifference(logits, one)).toBe(0);
  });

  test("the embedded model hardly changes", async () => {
    const tokenizer = await openTokenizer(fileURLToPath(new URL("../embedded/tokenizer.json", import.meta.url)));
    const ids = tokenizer.encode("Once upon a time there lived a king who had three daughters, and the youngest was");
    const nats = (logits: Float32Array) => {
      const width = logits.length / ids.length;
      expect(width).toBe(2048);
      const surprises = ids.slice(1).map((token, i) => {
        const row = logits.subarray(i * width, (i + 1) * width);
        const max = Math.max(...row);
        return max + Math.log(row.reduce((total, logit) => total + Math.exp(logit - max), 0)) - row[token]!;
      });
      return surprises.reduce((sum, surprise) => sum + surprise, 0) / surprises.length;
    };
    const exact = nats((await logitsOf(undefined, { backend: "native" }, ids)).logits);
    const found = nats((await logitsOf(undefined, { backend: "native", dtype }, ids)).logits);
    // A model that knows tales: well below the log(2048) = 7.6 of one that knows nothing.
    expect(exact).toBeLessThan(4);
    expect(Math.abs(found / exact - 1)).toBeLessThan(dtype === "q8" ? 0.01 : 0.06);
  });
});

test("a .pth file cannot hold blocks, and says so", async () => {
  const path = join(await temporaryFolder(), "blocks.pth");
  await expect(rwkv("convert", fixture("odd.pth"), path, "--dtype", "q8")).rejects.toThrow(
    /cannot hold q8; write .safetensors/,
  );
  await expect(writePth(path, [{ name: "w", dtype: "q4", shape: [1, 1], bytes: () => [] }])).rejects.toThrow(
    "w: a .pth",
  );
});

test.each([
  ["q8 1 32", "expected U8 [1, 1088] for blocks"],
  ["q4 17 64", "expected U8 [2, 576] for blocks"],
  ["q5 16 64", "expected q8 or q4, outputs and inputs"],
  ["q4 999999999 999999999", "for blocks of"],
  ["q4 -1 64", "expected q8 or q4"],
])("metadata that do not fit their tensor are refused: %s", async (text, message) => {
  const path = join(await temporaryFolder(), "hostile.safetensors");
  const json = JSON.stringify({
    __metadata__: { "blocks/w": text },
    w: { dtype: "U8", shape: [1, 576], data_offsets: [0, 576] },
  });
  const bytes = Buffer.alloc(8 + json.length + 576);
  bytes.writeBigUInt64LE(BigInt(json.length));
  bytes.write(json, 8);
  await writeFile(path, bytes);
  await expect(openCheckpoint(path)).rejects.toThrow(message);
  await expect(openCheckpoint(path)).rejects.toThrow("tensor w");
});

test("the layout of blocks has a number in the file; files from before it are read, those of another are not", async () => {
  const path = join(await temporaryFolder(), "blocks.safetensors");
  await rwkv("convert", fixture("odd.pth"), path, "--dtype", "q8");
  const bytes = await readFile(path);
  const stated = '"blocks.layout":"1",';
  expect(bytes.includes(stated)).toBe(true);
  const replaced = async (text: string) => {
    const changed = Buffer.from(bytes);
    changed.write(text.padEnd(stated.length), bytes.indexOf(stated));
    await writeFile(path, changed);
  };
  const { logits } = await logitsOf(path, { backend: "native" });
  await replaced("");
  expect((await logitsOf(path, { backend: "native" })).logits).toEqual(logits);
  await replaced(stated.replace("1", "2"));
  await expect(openCheckpoint(path)).rejects.toThrow('expected blocks of layout 1, found layout "2"');
});

test("a state does not fit a model with another embedding, also where that is in blocks", async () => {
  const folder = await temporaryFolder();
  const withEmbedding = (sign: number) =>
    rewrite(fixture("odd.pth"), join(folder, `${sign}.safetensors`), (tensors) =>
      tensors.map((tensor) => {
        if (tensor.name !== "emb.weight") return tensor;
        const [rows, width] = tensor.shape as [number, number];
        const values = Float32Array.from({ length: rows * width }, (_, i) => sign * Math.sin(i + 1));
        const groups = Array.from({ length: Math.ceil(rows / groupOutputs) }, (_, i) =>
          quantizeGroup(values.subarray(i * groupOutputs * width, (i + 1) * groupOutputs * width), width, "q8"),
        );
        return { ...tensor, dtype: "q8", bytes: () => groups };
      }),
    );
  const [one, same, other] = await Promise.all([
    load(await withEmbedding(1)),
    load(await withEmbedding(1)),
    load(await withEmbedding(-1)),
  ]);
  const saved = await one.session().save();
  await same.session(saved).dispose();
  expect(() => other.session(saved)).toThrow(StateError);
  await Promise.all([one, same, other].map((model) => model.dispose()));
});

describe("tensors that are not aligned in their file", () => {
  /** The odd model as safetensors, its data at a multiple of 8 and at one to seven bytes past that. */
  async function shiftedFiles(dtype: "f32" | "f16" | "bf16" | "q8"): Promise<string[]> {
    const folder = await temporaryFolder();
    await rwkv("convert", fixture("odd.pth"), join(folder, "aligned.safetensors"), "--dtype", dtype);
    const bytes = await readFile(join(folder, "aligned.safetensors"));
    const length = Number(bytes.readBigUInt64LE(0));
    const paths: string[] = [];
    for (let shift = 0; shift < 8; shift++) {
      const header = Buffer.alloc(8 + length + shift, " ");
      bytes.copy(header, 0, 0, 8 + length);
      header.writeBigUInt64LE(BigInt(length + shift));
      paths[shift] = join(folder, `shifted-${shift}.safetensors`);
      await writeFile(paths[shift]!, Buffer.concat([header, bytes.subarray(8 + length)]));
    }
    return paths;
  }

  test.each(["f32", "f16", "bf16", "q8"] as const)("%s: the logits are the same to the bit", async (dtype) => {
    const [aligned, ...others] = (await shiftedFiles(dtype)) as [string, ...string[]];
    for (const backend of ["native", "wasm", "reference"] as const) {
      const expected = (await logitsOf(aligned, { backend, threads: 1 })).logits;
      // By one byte, two, and four, and in the long tests by all.
      const shifted = isThorough ? others : [others[0]!, others[1]!, others[3]!];
      for (const path of backend === "native" ? shifted : shifted.slice(0, 2)) {
        const { logits } = await logitsOf(path, { backend, threads: 1 });
        expect(maxDifference(logits, expected), `${backend}, ${path}`).toBe(0);
      }
    }
    // And quantized while it is loaded.
    if (dtype === "q8") return;
    const expected = (await logitsOf(aligned, { backend: "native", dtype: "q8" })).logits;
    const { logits } = await logitsOf(others[2], { backend: "native", dtype: "q8" });
    expect(maxDifference(logits, expected)).toBe(0);
  });
});

test("blocks are read as floats, by pieces, and never made by readers", async () => {
  const path = join(await temporaryFolder(), "blocks.safetensors");
  await rwkv("convert", fixture("odd.pth"), path, "--dtype", "q8");
  const [exact, blocks] = [await openCheckpoint(fixture("odd.pth")), await openCheckpoint(path)];
  const name = "blocks.0.ffn.value.weight";
  const [a, b] = await Promise.all([exact, blocks].map((c) => readFloat32(c.tensors.get(name) as StoredTensor)));
  expect(maxDifference(a!, b!)).toBeLessThan(0.02);
  expect(maxDifference(a!, b!)).toBeGreaterThan(0);
  await expect(tensorPieces(exact.tensors.get(name) as StoredTensor, "q8").next()).rejects.toThrow("no conversion");
  await Promise.all([exact.close(), blocks.close()]);
});
