// Matrices of ggml's types of random bits, whose scales are numbers of ordinary size.

import { bytesSource } from "#rwkv/byte-source";
import { contiguousStrides, type StoredTensor } from "#rwkv/checkpoints/checkpoint";
import { float16Bits } from "#rwkv/dtypes";
import type { StorageType } from "#rwkv/quantization/storage-types";
import { randomGenerator } from "#rwkv/sampling/random";

/** Bytes and weights of a block, and where its numbers of binary16 are (structs of ggml-common.h). */
export const ggmlBlocks = {
  Q8_0: { bytes: 34, weights: 32, scales: [0] },
  Q4_0: { bytes: 18, weights: 32, scales: [0] },
  Q4_1: { bytes: 20, weights: 32, scales: [0, 2] },
  Q5_0: { bytes: 22, weights: 32, scales: [0] },
  Q5_1: { bytes: 24, weights: 32, scales: [0, 2] },
  Q2_K: { bytes: 84, weights: 256, scales: [80, 82] },
  Q3_K: { bytes: 110, weights: 256, scales: [108] },
  Q4_K: { bytes: 144, weights: 256, scales: [0, 2] },
  Q5_K: { bytes: 176, weights: 256, scales: [0, 2] },
  Q6_K: { bytes: 210, weights: 256, scales: [208] },
  IQ4_NL: { bytes: 18, weights: 32, scales: [0] },
  IQ4_XS: { bytes: 136, weights: 256, scales: [0] },
} as const;

export type GgmlName = keyof typeof ggmlBlocks;

export const ggmlNames = Object.keys(ggmlBlocks) as GgmlName[];

/** Rows of random bytes with scales up to 1/16, of either sign. */
export function randomRows(name: GgmlName, rows: number, inputs: number, seed: number): Uint8Array {
  const { bytes, weights, scales } = ggmlBlocks[name];
  const random = randomGenerator(seed);
  const all = Uint8Array.from({ length: (rows * inputs * bytes) / weights }, () => {
    const byte = Math.floor(random.uniform() * 256);
    return name === "Q8_0" && byte === 128 ? 129 : byte; // -128 is what ggml never writes
  });
  const view = new DataView(all.buffer);
  for (let at = 0; at < all.length; at += bytes) {
    for (const scale of scales) view.setUint16(at + scale, float16Bits((random.uniform() - 0.5) / 8), true);
  }
  return all;
}

/** The same as a tensor. */
export function randomBlocks(
  tensor: string,
  name: GgmlName,
  shape: readonly [number, number],
  seed: number,
): StoredTensor {
  const source = bytesSource(tensor, randomRows(name, ...shape, seed));
  return { name: tensor, dtype: name as StorageType, shape, strides: contiguousStrides(shape), source, offset: 0 };
}
