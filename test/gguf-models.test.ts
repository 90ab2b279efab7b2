// What is done to the tensors of a GGUF file so that they are RWKV-LM's, where the file is not as it should be; and views whose
// elements are computed.

import { openCheckpoint, readFloat32, type StoredTensor } from "rwkv";
import { describe, expect, test } from "vitest";
import { bytesSource } from "#rwkv/byte-source";
import { byteLengthOf, contiguousStrides } from "#rwkv/checkpoints/checkpoint";
import { scaledByPowerOfTwo } from "#rwkv/checkpoints/computed-views";
import { float16Bits } from "#rwkv/dtypes";
import { withOfficialTensors } from "#rwkv/models/official-tensors";
import { bindModel } from "#rwkv/models/versions";
import { blockFormatOf, blockFormats, type StorageType } from "#rwkv/quantization/storage-types";
import { entry, floatBytes, type GgufTensor, gguf } from "./gguf-builder.js";

const zeros = (name: string, ...shape: number[]): GgufTensor => ({
  name,
  shape,
  data: floatBytes(new Array(shape.reduce((a, b) => a * b, 1)).fill(0)),
});

describe("GGUF files that are no RWKV model", () => {
  const refused: readonly [title: string, message: string, entries: Buffer[], tensors: GgufTensor[]][] = [
    [
      "another architecture",
      "a model of the architecture llama, not RWKV; expected rwkv6 or rwkv7",
      [entry.string("general.architecture", "llama")],
      [],
    ],
    [
      "a name of Object's",
      "a model of the architecture constructor",
      [entry.string("general.architecture", "constructor")],
      [],
    ],
    ["no architecture", "of the architecture none", [], []],
    [
      "RWKV-6 in Qwen",
      "RWKV-6 attention in a Qwen 2 model (QRWKV), which",
      [entry.string("general.architecture", "rwkv6qwen2")],
      [],
    ],
    [
      "RWKV-7 in Qwen",
      "RWKV-7 attention in a Qwen 2 model (ARWKV), which",
      [entry.string("general.architecture", "arwkv7")],
      [],
    ],
    [
      "a head size that is text",
      "metadata rwkv7.wkv.head_size: expected a whole number, found wide",
      [entry.string("general.architecture", "rwkv7"), entry.string("rwkv7.wkv.head_size", "wide")],
      [],
    ],
    [
      "heads that do not fit",
      "tensor blk.0.time_mix_r_k.weight: expected a multiple of the head size 48, found [64]",
      [entry.string("general.architecture", "rwkv7"), entry.uint32("rwkv7.wkv.head_size", 48)],
      [zeros("blk.0.time_mix_r_k.weight", 64)],
    ],
    [
      "heads of nothing",
      "a multiple of the head size 0",
      [entry.string("general.architecture", "rwkv7"), entry.uint32("rwkv7.wkv.head_size", 0)],
      [zeros("blk.0.time_mix_r_k.weight", 64)],
    ],
    [
      "too few vectors",
      "tensor blk.0.time_mix_lerp_fused.weight: expected 6 vectors, found [5, 1, 1, 8]",
      [entry.string("general.architecture", "rwkv7")],
      [zeros("blk.0.time_mix_lerp_fused.weight", 5, 1, 1, 8)],
    ],
    [
      "a vector for a matrix",
      "tensor blk.0.time_mix_w1.weight: expected a matrix, found [8]",
      [entry.string("general.architecture", "rwkv7")],
      [zeros("blk.0.time_mix_w1.weight", 8)],
    ],
  ];
  test.each(refused)("%s: %s", async (_, message, entries, tensors) => {
    const checkpoint = await openCheckpoint(gguf({ entries, tensors }));
    expect(() => withOfficialTensors(checkpoint)).toThrow(message);
    await checkpoint.close();
  });

  test("tensors of another name, and layers without end, are told", async () => {
    const tensors = [
      zeros("token_embd.weight", 4, 8),
      zeros("blk.0.time_mix_k_k.weight", 8),
      zeros("blk.0.time_mix_r_k.weight", 8),
      zeros("blk.0.time_mix_lerp_fused.weight", 6, 1, 1, 8),
      zeros("blk.0.channel_mix_key.weight", 16, 8),
      zeros("blk.1000000.attn_norm.weight", 8),
      zeros("surplus", 8),
    ];
    const entries = [entry.string("general.architecture", "rwkv7"), entry.uint32("rwkv7.wkv.head_size", 8)];
    const checkpoint = await openCheckpoint(gguf({ entries, tensors }));
    const { tensors: official } = withOfficialTensors(checkpoint);
    expect([...official.keys()].slice(-2)).toEqual(["blk.1000000.attn_norm.weight", "surplus"]);
    expect(() => bindModel(checkpoint)).toThrow();
    await checkpoint.close();
  });

  test("what is missing or of another shape is told by its name in the file, too", async () => {
    const tensors = [
      zeros("token_embd.weight", 4, 8),
      zeros("blk.0.time_mix_r_k.weight", 8),
      ...["w", "a", "g"].map((name) => zeros(`blk.0.time_mix_${name}1.weight`, 3, 8)),
      zeros("blk.0.time_mix_key.weight", 8, 9),
      zeros("blk.0.channel_mix_key.weight", 16, 8),
    ];
    const entries = [entry.string("general.architecture", "rwkv7"), entry.uint32("rwkv7.wkv.head_size", 8)];
    const checkpoint = await openCheckpoint(gguf({ entries, tensors }));
    for (const problem of [
      "missing head.weight [4, 8] (in the file output.weight)",
      "missing blocks.0.att.w2 [3, 8] (in the file blk.0.time_mix_w2.weight)",
      "missing blocks.0.att.x_a [1, 1, 8] (in the file blk.0.time_mix_lerp_fused.weight)",
      "blocks.0.att.key.weight: expected shape [8, 8], found [8, 9] (in the file blk.0.time_mix_key.weight)",
    ]) {
      expect(() => bindModel(checkpoint)).toThrow(problem);
    }
    await checkpoint.close();
  });
});

describe("a tensor times a power of two", () => {
  const shape = [3, 512];
  const blocks = [...blockFormats].filter(([, { block }]) => block).map(([name]) => name as StorageType);

  /** A tensor of bytes that mean something in the type. */
  function tensorOf(dtype: StorageType): StoredTensor {
    const padding = 7; // so that it does not begin where the source does
    const bytes = Uint8Array.from({ length: padding + byteLengthOf({ dtype, shape }) }, (_, i) => (i * 73) ^ (i >> 3));
    const view = new DataView(bytes.buffer);
    const block = blockFormatOf(dtype)?.block ?? { bytes: dtype === "f32" ? 4 : 2, scales: [0] };
    for (let at = padding, i = 0; at < bytes.length; at += block.bytes, i++) {
      const value = Math.sin(i) / 8;
      if (dtype === "f32") view.setFloat32(at, value, true);
      else
        for (const scale of block.scales) view.setUint16(at + scale, float16Bits(dtype === "bf16" ? 1 : value), true);
    }
    return {
      name: "w",
      dtype,
      shape,
      strides: contiguousStrides(shape),
      source: bytesSource("memory", bytes),
      offset: padding,
    };
  }

  test.each<StorageType>(["f32", "f16", "bf16", ...blocks])("%s", async (dtype) => {
    const tensor = tensorOf(dtype);
    const values = await readFloat32(tensor);
    expect(values.some((value) => value !== 0)).toBe(true);
    expect(await readFloat32(scaledByPowerOfTwo(tensor, 3))).toEqual(values.map((value) => 8 * value));
    expect(await readFloat32(scaledByPowerOfTwo(scaledByPowerOfTwo(tensor, 3), -3))).toEqual(values);
    expect(scaledByPowerOfTwo(tensor, 0)).toBe(tensor);
    // Any part of its bytes is what the whole has there.
    const scaled = scaledByPowerOfTwo(tensor, 2);
    const whole = new Uint8Array(byteLengthOf(tensor));
    await scaled.source.readInto(tensor.offset, whole);
    for (const [from, to] of [
      [0, 1],
      [1, 2],
      [1, 301],
      [33, 68],
      [whole.length - 3, whole.length],
    ] as const) {
      const part = new Uint8Array(to - from);
      await scaled.source.readInto(tensor.offset + from, part);
      expect(part).toEqual(whole.slice(from, to));
    }
  });

  test("integers have none", () => {
    expect(() => scaledByPowerOfTwo({ ...tensorOf("f16"), dtype: "i16" }, 1)).toThrow(
      "expected floating point, found i16",
    );
  });
});
