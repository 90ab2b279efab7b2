// ggml's types of blocks: the same numbers as ggml's own loops over a block give, and nothing lost where they are laid out for kernels.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { float16Value } from "#rwkv/dtypes";
import type { BlockFormat } from "#rwkv/quantization/block-format";
import { quantizeGroup } from "#rwkv/quantization/quantize";
import { blockFormats, type StorageType, storedSize } from "#rwkv/quantization/storage-types";
import { type GgmlName, ggmlBlocks, ggmlNames, randomRows } from "./random-blocks.js";

/** A loop over a block in the order of ggml's dequantize_row_*. */
interface Formulation {
  readonly values: (block: Uint8Array) => number[];
}

const f16 = (block: Uint8Array, at: number) => float16Value(block[at]! | (block[at + 1]! << 8));
const signed = (byte: number) => (byte << 24) >> 24;
const table = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/** 32 weights: lower halves of sixteen bytes, then the upper ones, each with a fifth bit where there is one. */
function halves(block: Uint8Array, at: number, fifth?: number): number[] {
  const bit = (i: number) => (fifth === undefined ? 0 : ((block[fifth + (i >> 3)]! >> (i & 7)) & 1) * 16);
  const bytes = [...block.subarray(at, at + 16)];
  return [...bytes.map((byte, i) => (byte & 15) + bit(i)), ...bytes.map((byte, i) => (byte >> 4) + bit(i + 16))];
}

/** The eight scales and least values of Q4_K and Q5_K (get_scale_min_k4). */
function pairs(block: Uint8Array, at: number): [number, number][] {
  const q = block.subarray(at, at + 12);
  return Array.from({ length: 8 }, (_, j) =>
    j < 4
      ? [q[j]! & 63, q[j + 4]! & 63]
      : [(q[j + 4]! & 15) | ((q[j - 4]! >> 6) << 4), (q[j + 4]! >> 4) | ((q[j]! >> 6) << 4)],
  );
}

function kWithLeast(block: Uint8Array, upper: number | undefined, quants: number): number[] {
  const [d, m, scales] = [f16(block, 0), f16(block, 2), pairs(block, 4)];
  const y: number[] = [];
  let [u1, u2] = [1, 2];
  for (let j = 0; j < 4; j++, u1 <<= 2, u2 <<= 2) {
    const bit = (l: number, mask: number) => (upper !== undefined && block[upper + l]! & mask ? 16 : 0);
    const [[s1, m1], [s2, m2]] = [scales[2 * j]!, scales[2 * j + 1]!];
    for (let l = 0; l < 32; l++) y.push(d * s1 * ((block[quants + 32 * j + l]! & 15) + bit(l, u1)) - m * m1);
    for (let l = 0; l < 32; l++) y.push(d * s2 * ((block[quants + 32 * j + l]! >> 4) + bit(l, u2)) - m * m2);
  }
  return y;
}

const formulations: Record<GgmlName, Formulation> = {
  Q8_0: {
    values: (block) => Array.from(block.subarray(2), (byte) => signed(byte) * f16(block, 0)),
  },
  Q4_0: { values: (b) => halves(b, 2).map((q) => (q - 8) * f16(b, 0)) },
  Q4_1: { values: (b) => halves(b, 4).map((q) => q * f16(b, 0) + f16(b, 2)) },
  Q5_0: { values: (b) => halves(b, 6, 2).map((q) => (q - 16) * f16(b, 0)) },
  Q5_1: {
    values: (b) => halves(b, 8, 4).map((q) => q * f16(b, 0) + f16(b, 2)),
  },
  IQ4_NL: { values: (b) => halves(b, 2).map((q) => table[q]! * f16(b, 0)) },
  IQ4_XS: {
    values: (block) =>
      Array.from({ length: 8 }, (_, ib) => {
        const high = block[2]! | (block[3]! << 8);
        const ls = ((block[4 + (ib >> 1)]! >> (4 * (ib % 2))) & 15) | (((high >> (2 * ib)) & 3) << 4);
        return halves(block, 8 + 16 * ib).map((q) => f16(block, 0) * (ls - 32) * table[q]!);
      }).flat(),
  },
  Q2_K: {
    values: (block) => {
      const y: number[] = [];
      let is = 0;
      for (const q of [16, 48]) {
        for (let shift = 0; shift < 8; shift += 2) {
          for (const part of [0, 16]) {
            const scale = block[is++]!;
            for (let l = 0; l < 16; l++) {
              const bits = (block[q + part + l]! >> shift) & 3;
              y.push(f16(block, 80) * (scale & 15) * bits - f16(block, 82) * (scale >> 4));
            }
          }
        }
      }
      return y;
    },
  },
  Q3_K: {
    values: (block) => {
      const view = new DataView(block.buffer, block.byteOffset);
      const [a0, a1, tmp] = [0, 4, 8].map((i) => view.getUint32(96 + i, true)) as [number, number, number];
      const words = [
        (a0 & 0x0f0f0f0f) | ((tmp & 0x03030303) << 4),
        (a1 & 0x0f0f0f0f) | (((tmp >>> 2) & 0x03030303) << 4),
        ((a0 >>> 4) & 0x0f0f0f0f) | (((tmp >>> 4) & 0x03030303) << 4),
        ((a1 >>> 4) & 0x0f0f0f0f) | (((tmp >>> 6) & 0x03030303) << 4),
      ];
      const y: number[] = [];
      let [is, m] = [0, 1];
      for (const q of [32, 64]) {
        for (let shift = 0; shift < 8; shift += 2, m <<= 1) {
          for (const part of [0, 16]) {
            const scale = ((words[is >> 2]! >>> (8 * (is % 4))) & 255) - 32;
            is++;
            for (let l = part; l < part + 16; l++) {
              y.push(f16(block, 108) * scale * (((block[q + l]! >> shift) & 3) - (block[l]! & m ? 0 : 4)));
            }
          }
        }
      }
      return y;
    },
  },
  Q4_K: { values: (block) => kWithLeast(block, undefined, 16) },
  Q5_K: { values: (block) => kWithLeast(block, 16, 48) },
  Q6_K: {
    values: (block) => {
      const y = new Array<number>(256);
      for (const n of [0, 1]) {
        const [ql, qh, sc] = [block.subarray(64 * n), block.subarray(128 + 32 * n), block.subarray(192 + 8 * n)];
        for (let l = 0; l < 32; l++) {
          const quants = [
            (ql[l]! & 15) | ((qh[l]! & 3) << 4),
            (ql[l + 32]! & 15) | (((qh[l]! >> 2) & 3) << 4),
            (ql[l]! >> 4) | (((qh[l]! >> 4) & 3) << 4),
            (ql[l + 32]! >> 4) | ((qh[l]! >> 6) << 4),
          ];
          quants.forEach((q, run) => {
            y[128 * n + 32 * run + l] = f16(block, 208) * signed(sc[(l >> 4) + 2 * run]!) * (q - 32);
          });
        }
      }
      return y;
    },
  },
};

/** Whether all numbers are the same; NaN is where NaN is. */
const isSame = (a: Float32Array, b: Float32Array) =>
  a.length === b.length && a.every((value, i) => value === b[i] || (Number.isNaN(value) && Number.isNaN(b[i])));

const formatOf = (name: string) => blockFormats.get(name) as BlockFormat;

/** The weights of whole rows or groups. */
function decoded(name: string, bytes: Uint8Array, rows: number, inputs: number): Float32Array {
  const { groupOutputs, groupSize, decode } = formatOf(name);
  const values = new Float32Array(rows * inputs);
  for (let row = 0, at = 0; row < rows; row += groupOutputs, at += groupSize(inputs)) {
    const target = values.subarray(row * inputs, (row + groupOutputs) * inputs);
    decode(bytes.subarray(at, at + groupSize(inputs)), inputs, target);
  }
  return values;
}

describe.each(ggmlNames)("%s", (name) => {
  const { bytes, weights, scales } = ggmlBlocks[name];
  const { values } = formulations[name];
  const format = formatOf(name);

  test("any bytes are the numbers that ggml's loop gives", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 2 * bytes, maxLength: 2 * bytes }), (row) => {
        const expected = [row.subarray(0, bytes), row.subarray(bytes)].flatMap((block) => values(block.slice()));
        expect(isSame(decoded(name, row, 1, 2 * weights), Float32Array.from(expected))).toBe(true);
      }),
    );
  });

  test("sizes and scales", () => {
    expect(storedSize(name as StorageType, [3, 2 * weights])).toBe(6 * bytes);
    expect(format.inputsMultiple).toBe(weights);
    const rows = randomRows(name, 1, 3 * weights, 1);
    const found: number[] = [];
    format.visitScales(rows, 3 * weights, (bits) => void found.push(bits));
    const view = new DataView(rows.buffer);
    expect(found).toEqual([0, 1, 2].flatMap((i) => scales.map((at) => view.getUint16(i * bytes + at, true))));
  });

  test.runIf(format.repack)("keeps every number where it is laid out for kernels", () => {
    const to = format.repack!.to;
    const inputs = 768;
    const size = storedSize(to, [1, inputs]);
    for (const rows of [1, 5, 16]) {
      const stored = randomRows(name, rows, inputs, rows);
      const group = new Uint8Array(size);
      format.repack!.group(stored, inputs, group);
      const all = new Float32Array(16 * inputs);
      formatOf(to).decode(group, inputs, all);
      expect(isSame(all.subarray(0, rows * inputs), decoded(name, stored, rows, inputs))).toBe(true);
      expect(all.subarray(rows * inputs).every((value) => value === 0)).toBe(true);
    }
    const isOwnSize = ["Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"].includes(name);
    if (isOwnSize) expect(size).toBe(16 * format.groupSize(inputs));
  });
});

test.each(["Q4_1", "Q5_1", "Q2_K", "IQ4_XS"] as const)("%s is fitted to q8 better than by rounding", (name) => {
  const [rows, inputs] = [5, 512];
  const values = decoded(name, randomRows(name, rows, inputs, 2), rows, inputs);
  const errorOf = (group: Uint8Array) =>
    decoded("q8", group, rows, inputs).reduce((sum, value, i) => sum + (value - values[i]!) ** 2, 0);
  const fitted = errorOf(quantizeGroup(values, inputs, "q8", name));
  expect(fitted).toBeLessThan(0.75 * errorOf(quantizeGroup(values, inputs, "q8")));
  expect(fitted).toBeLessThan(0.005 ** 2 * values.reduce((sum, value) => sum + value * value, 0));
  const damaged = values.slice(0, inputs);
  damaged[40] = Number.NaN;
  const found = decoded("q8", quantizeGroup(damaged, inputs, "q8", name), 1, inputs);
  expect(found.subarray(32, 64).every(Number.isNaN)).toBe(true);
  expect(found.subarray(0, 32).some(Number.isNaN)).toBe(false);
});

test("an integer of -128 in Q8_0, which ggml never writes and kernels cannot take, becomes -127", () => {
  const row = randomRows("Q8_0", 1, 32, 1);
  row[2] = 128;
  const group = new Uint8Array(storedSize("q8", [1, 32]));
  formatOf("Q8_0").repack?.group(row, 32, group);
  const values = decoded("q8", group, 1, 32);
  row[2] = 129;
  expect(isSame(values, decoded("Q8_0", row, 1, 32))).toBe(true);
});
