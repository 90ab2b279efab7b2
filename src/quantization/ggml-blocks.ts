// ggml's types with 32 weights a block: Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL. Of those with nibbles, byte i has weight i in its lower half
// and weight i + 16 in its upper one.

import { float16Value } from "../dtypes.js";
import { blockInputs, groupOutputs, placeOf } from "./blocks.js";
import { type GgmlType, ggmlFormat } from "./ggml-rows.js";

const half = blockInputs / 2;

/** The values that the integers of IQ4_NL and IQ4_XS stand for (kvalues_iq4nl in ggml-common.h). */
export const iq4Values = Int8Array.of(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);

function scaleAt(view: DataView, at: number): number {
  return float16Value(view.getUint16(at, true));
}

/** Weight i of a block of 32 nibbles. */
function nibbleAt(view: DataView, at: number, i: number): number {
  const byte = view.getUint8(at + (i % half));
  return i < half ? byte & 15 : byte >> 4;
}

/** The same with a fifth bit from the 32 bits at `high`. */
function fiveBitsAt(view: DataView, high: number, at: number, i: number): number {
  return nibbleAt(view, at, i) | (((view.getUint32(high, true) >>> i) & 1) << 4);
}

/** A type with one scale and numbers that are multiples of it. */
function scaledType(
  bytes: number,
  numberAt: (view: DataView, at: number, i: number) => number,
  kernels: Pick<GgmlType, "computed" | "repack">,
): GgmlType {
  return {
    inputs: blockInputs,
    bytes,
    scales: [0],
    decode(view, at, target, to) {
      const scale = scaleAt(view, at);
      for (let i = 0; i < blockInputs; i++) target[to + i] = numberAt(view, at, i) * scale;
    },
    ...kernels,
  };
}

/** A type with a scale, and a least value that is added to its multiples. Kernels have none like it, so it is quantized to q8. */
function offsetType(bytes: number, numberAt: (view: DataView, at: number, i: number) => number): GgmlType {
  return {
    inputs: blockInputs,
    bytes,
    scales: [0, 2],
    computed: "q8",
    decode(view, at, target, to) {
      const [scale, least] = [scaleAt(view, at), scaleAt(view, at + 2)];
      for (let i = 0; i < blockInputs; i++) target[to + i] = numberAt(view, at, i) * scale + least;
    },
  };
}

/** The numbers fit into q8, with the scale as it is. */
function asQ8(numberAt: (view: DataView, at: number, i: number) => number): Pick<GgmlType, "computed" | "repack"> {
  return {
    computed: "q8",
    repack: {
      to: "q8",
      block(view, at, group, row, block) {
        const place = placeOf("q8", row, block * blockInputs);
        group.setUint16(place.scale, view.getUint16(at, true), true);
        for (let i = 0; i < blockInputs; i += 4) {
          let word = 0;
          for (let k = 0; k < 4; k++) word |= (numberAt(view, at, i + k) & 255) << (8 * k);
          group.setUint32(place.quant + i * groupOutputs, word, true);
        }
      },
    },
  };
}

const q8At = (view: DataView, at: number, i: number) => view.getInt8(at + 2 + i);

/** Blocks that kernels read with the same bytes after the scale, four at a time. */
function sameBytes(
  to: "q8" | "q4",
  bytes: number,
  word: (stored: number) => number,
): Pick<GgmlType, "computed" | "repack"> {
  return {
    computed: to,
    repack: {
      to,
      block(view, at, group, row, block) {
        const place = placeOf(to, row, block * blockInputs);
        group.setUint16(place.scale, view.getUint16(at, true), true);
        for (let i = 0; i < bytes; i += 4) {
          group.setUint32(place.quant + i * groupOutputs, word(view.getUint32(at + 2 + i, true)), true);
        }
      },
    },
  };
}

/** But for -128, which kernels cannot take and ggml does not write. */
const sameQ8 = sameBytes("q8", blockInputs, withoutLeast);

/** Four integers in a word, with -127 for -128. */
function withoutLeast(word: number): number {
  const flipped = word ^ 0x80808080;
  const hasLeast = ((flipped - 0x01010101) & ~flipped & 0x80808080) !== 0;
  if (!hasLeast) return word;
  let result = word;
  for (let shift = 0; shift < 32; shift += 8) if (((word >>> shift) & 255) === 128) result |= 1 << shift;
  return result;
}

const q4At = (view: DataView, at: number, i: number) => nibbleAt(view, at + 2, i) - 8;

const asQ4 = sameBytes("q4", half, (word) => word);

const q50At = (view: DataView, at: number, i: number) => fiveBitsAt(view, at + 2, at + 6, i) - 16;

const iq4At = (view: DataView, at: number, i: number) => iq4Values[nibbleAt(view, at + 2, i)] as number;

export const q8_0 = ggmlFormat(scaledType(34, q8At, sameQ8));
export const q4_0 = ggmlFormat(scaledType(18, q4At, asQ4));
export const q4_1 = ggmlFormat(offsetType(20, (view, at, i) => nibbleAt(view, at + 4, i)));
export const q5_0 = ggmlFormat(scaledType(22, q50At, asQ8(q50At)));
export const q5_1 = ggmlFormat(offsetType(24, (view, at, i) => fiveBitsAt(view, at + 4, at + 8, i)));
export const iq4_nl = ggmlFormat(scaledType(18, iq4At, asQ8(iq4At)));
