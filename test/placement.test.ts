// How weights come into memory: a type of storage that is written here, in one object, as any other would be in one
// file; and lines about weights that a type cannot hold.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { load, openCheckpoint, readFloat32, type StoredTensor, type WritableTensor } from "rwkv";
import { train } from "rwkv/training";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "#rwkv/backends/backend";
import { nativeBackend } from "#rwkv/backends/native/native";
import { describeFitted, matrixTypes, treatmentOf } from "#rwkv/backends/placement";
import { referenceBackend } from "#rwkv/backends/reference/reference";
import { wasmBackend } from "#rwkv/backends/wasm/wasm";
import { bytesSource } from "#rwkv/byte-source";
import { byteLengthOf, contiguousStrides } from "#rwkv/checkpoints/checkpoint";
import { examineTensor } from "#rwkv/checkpoints/examine-tensor";
import { blockPieces, tensorPieces } from "#rwkv/checkpoints/read-tensor";
import { float16Bits, float16Value } from "#rwkv/dtypes";
import { GraphBuilder } from "#rwkv/graph/graph-builder";
import { bindModel } from "#rwkv/models/versions";
import type { BlockFormat } from "#rwkv/quantization/block-format";
import { blockInputs, groupOutputs, placeOf } from "#rwkv/quantization/blocks";
import { blockFormats, type StorageType } from "#rwkv/quantization/storage-types";
import { storedTensor } from "#rwkv/training/initialize";
import { fixture, maxDifference, temporaryFolder } from "./fixture-files.js";
import { type GgmlName, randomBlocks } from "./random-blocks.js";
import { rewrite } from "./rewritten-checkpoints.js";

/** Rows by themselves: for each 32 inputs a scale and then the integers, as ggml's Q8_0 has them. */
const blockBytes = 2 + 32;
const rowBytes = (inputs: number) => (inputs / 32) * blockBytes;
const rows8: BlockFormat = {
  groupOutputs: 1,
  inputsMultiple: 32,
  computed: "q8",
  groupSize: rowBytes,
  decode(group, inputs, target) {
    const view = new DataView(group.buffer, group.byteOffset, group.byteLength);
    for (let i = 0; i < inputs; i++) {
      const block = Math.floor(i / 32) * blockBytes;
      target[i] = view.getInt8(block + 2 + (i % 32)) * float16Value(view.getUint16(block, true));
    }
  },
  visitScales(groups, _, visit) {
    const view = new DataView(groups.buffer, groups.byteOffset, groups.byteLength);
    for (let at = 0; at < groups.length; at += blockBytes) visit(view.getUint16(at, true), 0);
  },
  repack: {
    to: "q8",
    group(rows, inputs, target) {
      const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
      for (let at = 0, row = 0; at < rows.length; row++) {
        for (let block = 0; block < inputs / blockInputs; block++, at += blockBytes) {
          for (let i = 0; i < blockInputs; i++) {
            const place = placeOf("q8", row, block * blockInputs + i);
            if (i === 0) view.setUint16(place.scale, (rows[at] as number) | ((rows[at + 1] as number) << 8), true);
            target[place.quant] = rows[at + 2 + i] as number;
          }
        }
      }
    },
  },
};
const name = "rows8" as StorageType;
const listed = blockFormats as Map<string, BlockFormat>;
beforeAll(() => void listed.set(name, rows8));
afterAll(() => void listed.delete(name));

const [outputs, inputs] = [groupOutputs * 2 + 5, 96];

/** Few of its blocks have an integer of 127, so that quantizing its values anew would give others. */
function matrix(weight: string): { tensor: StoredTensor; values: Float32Array } {
  const bytes = new Uint8Array(outputs * rowBytes(inputs));
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < bytes.length; at += blockBytes) {
    view.setUint16(at, float16Bits(0.01 + Math.sin(at) ** 2 / 30), true);
    for (let i = 0; i < 32; i++) view.setInt8(at + 2 + i, Math.round(90 * Math.sin(at * 3 + i * 1.7)));
  }
  const values = new Float32Array(outputs * inputs);
  for (let row = 0; row < outputs; row++) {
    rows8.decode(bytes.subarray(row * rowBytes(inputs)), inputs, values.subarray(row * inputs, (row + 1) * inputs));
  }
  const shape = [outputs, inputs];
  const source = bytesSource("memory", bytes);
  return { tensor: { name: weight, dtype: name, shape, strides: contiguousStrides(shape), source, offset: 0 }, values };
}

describe("a type of storage in blocks of its own", () => {
  const { tensor, values } = matrix("w");

  test("is read as floats, in pieces of whole rows, and examined", async () => {
    expect(byteLengthOf(tensor)).toBe(outputs * 3 * 34);
    expect(await readFloat32(tensor)).toEqual(values);
    let rows = 0;
    for await (const piece of blockPieces(tensor, groupOutputs)) rows += piece.rows;
    expect(rows).toBe(outputs);
    await expect(tensorPieces(tensor, "q8").next()).rejects.toThrow("no conversion from rows8 to q8");
    expect(await examineTensor(tensor)).toEqual({ invalid: 0, firstInvalid: 0, allZero: false });
    const bytes = new Uint8Array(byteLengthOf(tensor));
    await tensor.source.readInto(0, bytes);
    bytes.set([0, 0x7e], 7 * rowBytes(inputs) + blockBytes); // NaN, the scale of a block of row 7
    const damaged = { ...tensor, source: bytesSource("memory", bytes) };
    expect(await examineTensor(damaged)).toEqual({ invalid: 1, firstInvalid: 7, allZero: false });
  });

  test("is laid out anew where kernels have its numbers, and converted or quantized elsewhere", () => {
    expect(treatmentOf(tensor, "q8", true)).toBe("repack");
    expect(treatmentOf(tensor, "q4", true)).toBe("quantize");
    expect(treatmentOf(tensor, "f32", true)).toBe("convert");
  });

  test.each<[string, Backend]>([
    ["reference", referenceBackend],
    ["native", nativeBackend],
    ["wasm", wasmBackend],
  ])("keeps its numbers when it is laid out anew: %s", async (_, backend) => {
    const g = new GraphBuilder();
    const x = g.embedding(g.matrix("emb", 7, inputs));
    const graph = g.finish(g.matmul(g.matrix("w", outputs, inputs), g.selectRows(x)));
    const embedding = Float32Array.from({ length: 7 * inputs }, (_, i) =>
      i % 32 === 0 ? 1 : Math.round(127 * Math.sin(i * i)) / 127,
    );
    const tensors = new Map([
      ["emb", storedTensor("emb", [7, inputs], embedding)],
      ["w", tensor],
    ]);
    const types = matrixTypes(graph, tensors, undefined);
    expect([...types.values()]).toEqual(["f32", "q8"]);
    const runtime = await backend.open({ graph, tensors }, { threads: 2 });
    const run = async () =>
      (
        await runtime.run([{ state: runtime.createState(), tokens: [0, 1, 2, 3, 4, 5, 6], logits: "all" }])
      ).logits.slice();
    const logits = await run();
    await runtime.dispose();
    // Rows of x are rounded to 8 bits, which these, whose largest is 127 of 127 parts, hardly are.
    const expected = Float32Array.from({ length: 7 * outputs }, (_, at) => {
      const [token, output] = [Math.floor(at / outputs), at % outputs];
      let sum = 0;
      for (let i = 0; i < inputs; i++) sum += embedding[token * inputs + i]! * values[output * inputs + i]!;
      return sum;
    });
    expect(maxDifference(logits, expected)).toBeLessThan(1e-4);
    const twice = await backend.open({ graph, tensors }, { threads: 1, dtype: "q8" });
    const state = twice.createState();
    const again = await twice.run([{ state, tokens: [0, 1, 2, 3, 4, 5, 6], logits: "all" }]);
    expect(again.logits.slice()).toEqual(logits);
    await twice.dispose();
  });
});

describe("weights that are too large for a type are told", () => {
  /** The odd model with some large weights in its head. */
  async function large(weight: number): Promise<string> {
    const path = join(await temporaryFolder(), "large.safetensors");
    return rewrite(fixture("odd.pth"), path, (tensors) =>
      tensors.map((tensor): WritableTensor => {
        if (tensor.name !== "head.weight") return tensor;
        const values = new Float32Array(33 * 31);
        values[40] = weight;
        return { ...tensor, bytes: () => [new Uint8Array(values.buffer)] };
      }),
    );
  }

  test.each(["native", "wasm", "reference"] as const)(
    "when they are quantized as they are loaded: %s",
    async (backend) => {
      const warnings: string[] = [];
      const onWarning = (line: string) => void warnings.push(line);
      for (const dtype of ["q8", "q4"] as const) {
        const model = await load(await large(1e8), { backend, dtype, threads: 1, onWarning });
        await model.dispose();
      }
      const line =
        "tensor head.weight: 1 block has a weight too large for the scale of q8, which is at most 65504; bf16 or f32 hold them";
      expect(warnings).toEqual([line, line]); // the head has 8 bits in both
      const model = await load(await large(1e6), { backend, dtype: "q8", threads: 1, onWarning });
      await model.dispose();
      expect(warnings.length).toBe(2);
    },
  );

  test("when a model that was trained is written, each time", async () => {
    const folder = await temporaryFolder();
    const data = join(folder, "text.txt");
    await writeFile(data, "The king said no. ".repeat(50));
    const notices: string[] = [];
    const out = join(folder, "run");
    const small = { layers: 1, width: 8, context: 8, batch: 1, validation: 0, steps: 1, threads: 1 };
    const common = { ...small, data, tokenizer: "bytes", onNotice: (line: string) => void notices.push(line) };
    await train({ ...common, out, dtype: "f16" });
    expect(notices.filter((line) => line.includes("infinite"))).toEqual([]);
    const from = join(folder, "large.safetensors");
    await rewrite(join(out, "model.safetensors"), from, (tensors) =>
      tensors.map((tensor): WritableTensor => {
        if (tensor.name !== "emb.weight") return tensor;
        const values = new Float32Array(256 * 8);
        values[255 * 8] = 1e5; // of a byte that no text has
        return { ...tensor, dtype: "f32", bytes: () => [new Uint8Array(values.buffer)] };
      }),
    );
    await train({
      ...common,
      out: join(folder, "tuned"),
      from,
      dtype: "f16",
      lora: { rank: 1, matrices: ["att.key"] },
    });
    const line =
      "tensor emb.weight: 1 value up to 100000 becomes infinite in f16, whose largest is 65504; bf16 or f32 hold them";
    expect(notices.filter((each) => each.includes("infinite"))).toEqual([line, line]); // as it began, and at the end
  });
});

test("types of blocks that are fitted to another are told, and none that keep their numbers", () => {
  const g = new GraphBuilder();
  const types: GgmlName[] = ["Q4_1", "Q8_0", "Q5_0", "Q3_K", "Q4_1", "Q2_K"];
  const x = types.reduce(
    (row, _, i) => g.matmul(g.matrix(`w${i}`, 256, 256), row),
    g.embedding(g.matrix("emb", 7, 256)),
  );
  const tensors = new Map([
    ["emb", storedTensor("emb", [7, 256], new Float32Array(7 * 256))],
    ...types.map((type, i) => [`w${i}`, randomBlocks(`w${i}`, type, [256, 256], i)] as const),
  ]);
  expect(describeFitted(g.finish(x), tensors)).toEqual([
    "2 of 7 matrices are fitted to q8 while loading, since kernels have no type like Q4_1; rwkv convert --dtype q8 does it once",
    "1 of 7 matrices are fitted to q8 while loading, since kernels have no type like Q2_K; rwkv convert --dtype q8 does it once",
  ]);
});

test("a matrix that lies as kernels read it is used where it lies, unless it will change", async () => {
  const checkpoint = await openCheckpoint(fixture("odd.pth"));
  const { tensors } = bindModel(checkpoint);
  const tensor = tensors.get("head.weight") as StoredTensor;
  expect(treatmentOf(tensor, "f32", true)).toBe("map");
  expect(treatmentOf(tensor, "f32", false)).toBe("copy");
  expect(treatmentOf({ ...tensor, offset: tensor.offset + 1 }, "f32", true)).toBe("copy");
  expect(treatmentOf({ ...tensor, strides: [1, 33] }, "f32", true)).toBe("copy");
  expect(treatmentOf({ ...tensor, source: bytesSource("memory", new Uint8Array(1e5)) }, "f32", true)).toBe("copy");
  expect(treatmentOf(tensor, "bf16", true)).toBe("convert");
  expect(treatmentOf(tensor, "q4", true)).toBe("quantize");
  await checkpoint.close();
});
