// ggml's types with 256 weights a block, in parts with scales of few bits: Q2_K to Q6_K and IQ4_XS.

import { float16Value } from "../dtypes.js";
import { groupOutputs } from "./blocks.js";
import { iq4Values } from "./ggml-blocks.js";
import { type GgmlType, ggmlFormat } from "./ggml-rows.js";
import { layouts, superBlockInputs, unpackScale } from "./super-blocks.js";

/** Where in a type's block its parts are, in bytes. */
const places = {
  q2k: { bytes: 84, scales: 0, quants: 16, scale: 80, least: 82 },
  q3k: { bytes: 110, upper: 0, quants: 32, scales: 96, scale: 108 },
  q4k: { bytes: 144, scale: 0, least: 2, scales: 4, upper: 16, quants: 16 },
  q5k: { bytes: 176, scale: 0, least: 2, scales: 4, upper: 16, quants: 48 },
  q6k: { bytes: 210, quants: 0, upper: 128, scales: 192, scale: 208 },
  iq4xs: { bytes: 136, scale: 0, upperScales: 2, scales: 4, quants: 8 },
} as const;

/** A bit of each byte of a word, and the lower half of each. */
const [ones, nibbles] = [0x01010101, 0x0f0f0f0f];
/** Bytes from a word of an output to the next. */
const wordRow = 4 * groupOutputs;

function scaleAt(view: DataView, at: number): number {
  return float16Value(view.getUint16(at, true));
}

/**
 * Two bits of weight i, as Q2_K and Q3_K have them: of each half of a block 32 bytes, in which four weights 32 apart share a byte.
 */
function twoBitsAt(view: DataView, at: number, i: number): number {
  return (view.getUint8(at + 32 * Math.floor(i / 128) + (i % 32)) >> (2 * (Math.floor(i / 32) % 4))) & 3;
}

const q2k: GgmlType = {
  inputs: superBlockInputs,
  bytes: places.q2k.bytes,
  scales: [places.q2k.scale, places.q2k.least],
  // Kernels have no type with a least value for sixteen weights.
  computed: "q8",
  decode(view, at, target, to) {
    const { scales, quants, scale, least } = places.q2k;
    const [d, m] = [scaleAt(view, at + scale), scaleAt(view, at + least)];
    for (let i = 0; i < superBlockInputs; i++) {
      const small = view.getUint8(at + scales + Math.floor(i / 16));
      target[to + i] = d * (small & 15) * twoBitsAt(view, at + quants, i) - m * (small >> 4);
    }
  },
};

/** The scale of weights 16 j to 16 j + 15 of Q3_K, -32 to 31: lower four bits in eight bytes, upper two in four. */
function scaleOfQ3K(view: DataView, at: number, j: number): number {
  const low = (view.getUint8(at + (j % 8)) >> (j < 8 ? 0 : 4)) & 15;
  const high = (view.getUint8(at + 8 + (j % 4)) >> (2 * Math.floor(j / 4))) & 3;
  return (low | (high << 4)) - 32;
}

/** A weight of Q3_K without its scales, -4 to 3. */
function numberOfQ3K(view: DataView, at: number, i: number): number {
  const { upper, quants } = places.q3k;
  const bit = (view.getUint8(at + upper + (i % 32)) >> Math.floor(i / 32)) & 1;
  return twoBitsAt(view, at + quants, i) - (bit ? 0 : 4);
}

const q3k: GgmlType = {
  inputs: superBlockInputs,
  bytes: places.q3k.bytes,
  scales: [places.q3k.scale],
  computed: "q6k",
  decode(view, at, target, to) {
    const { scales, scale } = places.q3k;
    const d = scaleAt(view, at + scale);
    for (let i = 0; i < superBlockInputs; i++) {
      target[to + i] = d * scaleOfQ3K(view, at + scales, Math.floor(i / 16)) * numberOfQ3K(view, at, i);
    }
  },
  // q6k has room for all its numbers and scales.
  repack: {
    to: "q6k",
    block(view, at, group, row, block) {
      const { scales, scale } = places.q3k;
      const from = block * layouts.q6k.size;
      group.setUint16(from + 2 * row, view.getUint16(at + scale, true), true);
      for (let j = 0; j < 16; j++) {
        group.setInt8(from + layouts.q6k.smallScales + j * groupOutputs + row, scaleOfQ3K(view, at + scales, j));
      }
      for (let i = 0; i < superBlockInputs; i++) {
        const [part, unit, half, number] = [i >> 5, (i >> 2) & 3, (i >> 4) & 1, numberOfQ3K(view, at, i) + 32];
        const to = from + layouts.q6k.blocks + part * layouts.q6k.blockSize + 4 * row;
        addBits(group, to + half * wordRow, (number >> 4) << (8 * (i % 4) + 2 * unit));
        addBits(group, to + (2 + unit) * wordRow, (number & 15) << (8 * (i % 4) + 4 * half));
      }
    },
  },
};

function addBits(view: DataView, at: number, bits: number): void {
  view.setUint32(at, view.getUint32(at, true) | bits, true);
}

/** Q4_K and Q5_K: eight parts of 32 weights, each with a scale and a least value of 6 bits. */
function typeWithLeast(dtype: "q4k" | "q5k"): GgmlType {
  const { bytes, scale, least, scales, upper, quants } = places[dtype];
  const packedAt = (view: DataView, at: number) =>
    [0, 4, 8].map((i) => view.getUint32(at + scales + i, true)) as [number, number, number];
  // Bytes of 32 weights in the lower halves and of the 32 after them in the upper ones; upper bits of all weights i, i + 32, ... in one.
  const nibbleAt = (view: DataView, at: number, i: number) =>
    (view.getUint8(at + quants + 32 * Math.floor(i / 64) + (i % 32)) >> (i % 64 < 32 ? 0 : 4)) & 15;
  const upperAt = (view: DataView, at: number, i: number) =>
    dtype === "q5k" ? ((view.getUint8(at + upper + (i % 32)) >> Math.floor(i / 32)) & 1) << 4 : 0;
  return {
    inputs: superBlockInputs,
    bytes,
    scales: [scale, least],
    computed: dtype,
    decode(view, at, target, to) {
      const [d, m] = [scaleAt(view, at + scale), scaleAt(view, at + least)];
      const packed = packedAt(view, at);
      for (let i = 0; i < superBlockInputs; i++) {
        const [small, smallLeast] = unpackScale(packed, Math.floor(i / 32));
        target[to + i] = d * small * (nibbleAt(view, at, i) | upperAt(view, at, i)) - m * smallLeast;
      }
    },
    repack: {
      to: dtype,
      block(view, at, group, row, block) {
        const from = block * layouts[dtype].size;
        group.setUint16(from + 2 * row, view.getUint16(at + scale, true), true);
        group.setUint16(from + 2 * (groupOutputs + row), view.getUint16(at + least, true), true);
        packedAt(view, at).forEach((word, i) => {
          group.setUint32(from + layouts[dtype].smallScales + 4 * (i * groupOutputs + row), word, true);
        });
        const { blocks, blockSize, upperWords } = layouts[dtype];
        for (let t = 0; t < 8; t++) {
          const to = from + blocks + t * blockSize + 4 * row;
          const [bytesOf, shift] = [at + quants + 32 * (t >> 1), 4 * (t % 2)];
          let bits = 0;
          for (let s = 0; s < 8 * upperWords; s++)
            bits |= ((view.getUint32(at + upper + 4 * s, true) >>> t) & ones) << s;
          if (upperWords > 0) group.setUint32(to, bits, true);
          for (let s = 0; s < 4; s++) {
            const low = (view.getUint32(bytesOf + 4 * s, true) >>> shift) & nibbles;
            const high = (view.getUint32(bytesOf + 16 + 4 * s, true) >>> shift) & nibbles;
            group.setUint32(to + (upperWords + s) * wordRow, low | (high << 4), true);
          }
        }
      },
    },
  };
}

const q6k: GgmlType = {
  inputs: superBlockInputs,
  bytes: places.q6k.bytes,
  scales: [places.q6k.scale],
  computed: "q6k",
  decode(view, at, target, to) {
    const { quants, upper, scales, scale } = places.q6k;
    const d = scaleAt(view, at + scale);
    for (let i = 0; i < superBlockInputs; i++) {
      // Each half of 128 weights: four runs of 32, of which the first and third share bytes, as do the second and fourth.
      const [n, run, l] = [i >> 7, (i >> 5) & 3, i % 32];
      const nibble = (view.getUint8(at + quants + 64 * n + 32 * (run & 1) + l) >> (4 * (run >> 1))) & 15;
      const bits = (view.getUint8(at + upper + 32 * n + l) >> (2 * run)) & 3;
      target[to + i] = d * view.getInt8(at + scales + (i >> 4)) * ((nibble | (bits << 4)) - 32);
    }
  },
  repack: {
    to: "q6k",
    block(view, at, group, row, block) {
      const { quants, upper, scales, scale } = places.q6k;
      const from = block * layouts.q6k.size;
      group.setUint16(from + 2 * row, view.getUint16(at + scale, true), true);
      for (let j = 0; j < 16; j++) {
        group.setInt8(from + layouts.q6k.smallScales + j * groupOutputs + row, view.getInt8(at + scales + j));
      }
      const { blocks, blockSize } = layouts.q6k;
      for (let t = 0; t < 8; t++) {
        const to = from + blocks + t * blockSize + 4 * row;
        const [n, run] = [t >> 2, t & 3];
        const [lower, shift, higher] = [at + quants + 64 * n + 32 * (run & 1), 4 * (run >> 1), at + upper + 32 * n];
        for (let half = 0; half < 2; half++) {
          let bits = 0;
          for (let s = 0; s < 4; s++) {
            bits |= ((view.getUint32(higher + 16 * half + 4 * s, true) >>> (2 * run)) & (3 * ones)) << (2 * s);
          }
          group.setUint32(to + half * wordRow, bits, true);
        }
        for (let s = 0; s < 4; s++) {
          const low = (view.getUint32(lower + 4 * s, true) >>> shift) & nibbles;
          const high = (view.getUint32(lower + 16 + 4 * s, true) >>> shift) & nibbles;
          group.setUint32(to + (2 + s) * wordRow, low | (high << 4), true);
        }
      }
    },
  },
};

const iq4xs: GgmlType = {
  inputs: superBlockInputs,
  bytes: places.iq4xs.bytes,
  scales: [places.iq4xs.scale],
  // The products of its two scales need not fit into the one of q8.
  computed: "q8",
  decode(view, at, target, to) {
    const { scale, upperScales, scales, quants } = places.iq4xs;
    const d = scaleAt(view, at + scale);
    for (let i = 0; i < superBlockInputs; i++) {
      const block = i >> 5;
      const low = (view.getUint8(at + scales + (block >> 1)) >> (4 * (block & 1))) & 15;
      const high = (view.getUint16(at + upperScales, true) >> (2 * block)) & 3;
      const nibble = (view.getUint8(at + quants + 16 * block + (i % 16)) >> (i % 32 < 16 ? 0 : 4)) & 15;
      target[to + i] = d * ((low | (high << 4)) - 32) * (iq4Values[nibble] as number);
    }
  },
};

export const q2_k = ggmlFormat(q2k);
export const q3_k = ggmlFormat(q3k);
export const q4_k = ggmlFormat(typeWithLeast("q4k"));
export const q5_k = ggmlFormat(typeWithLeast("q5k"));
export const q6_k = ggmlFormat(q6k);
export const iq4_xs = ggmlFormat(iq4xs);
