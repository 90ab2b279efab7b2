// Matrices in blocks of 256 weights whose parts have scales of few bits: the numbers of ggml's Q4_K, Q5_K and Q6_K, laid out as
// kernels/quantized.h says, in as many bytes. As in blocks.ts sixteen outputs lie side by side, and four inputs of each together.

import { float16Value } from "../dtypes.js";
import type { BlockFormat } from "./block-format.js";
import { blockInputs, groupOutputs } from "./blocks.js";

/** Types of such matrices that kernels read. */
export type SuperBlockType = "q4k" | "q5k" | "q6k";

/** Inputs of a super-block; matrices have a multiple of them. */
export const superBlockInputs = 256;

const wordRow = 4 * groupOutputs;
const nibbleBytes = (blockInputs / 2) * groupOutputs;

/** Where the parts of a super-block of a group begin, and how long a block of 32 inputs is in it. */
interface Layout {
  readonly size: number;
  /** The packed scales of q4k and q5k; of q6k those in 8 bits. */
  readonly smallScales: number;
  readonly blocks: number;
  readonly blockSize: number;
  /** Words of a block, for each output, with bits above the lower four; they come before these. */
  readonly upperWords: number;
}

function layout(scales: number, smallScales: number, upperWords: number): Layout {
  const blocks = scales + smallScales;
  const blockSize = upperWords * wordRow + nibbleBytes;
  return { size: blocks + 8 * blockSize, smallScales: scales, blocks, blockSize, upperWords };
}

export const layouts: Readonly<Record<SuperBlockType, Layout>> = {
  q4k: layout(2 * 2 * groupOutputs, 3 * wordRow, 0),
  q5k: layout(2 * 2 * groupOutputs, 3 * wordRow, 1),
  q6k: layout(2 * groupOutputs, 16 * groupOutputs, 2),
};

/** The 6-bit scale and least value of block 0 to 7, of twelve bytes as Q4_K and Q5_K pack them, in three words. */
export function unpackScale([a, b, c]: readonly [number, number, number], block: number): [number, number] {
  const shift = 8 * (block % 4);
  if (block < 4) return [(a >>> shift) & 63, (b >>> shift) & 63];
  const [upperScale, upperLeast] = [(a >>> (shift + 6)) & 3, (b >>> (shift + 6)) & 3];
  return [((c >>> shift) & 15) | (upperScale << 4), ((c >>> (shift + 4)) & 15) | (upperLeast << 4)];
}

/** The weights of one output in a super-block that begins at `at`. */
function decodeRow(
  dtype: SuperBlockType,
  view: DataView,
  at: number,
  row: number,
  target: Float32Array,
  to: number,
): void {
  const { smallScales, blocks, blockSize, upperWords } = layouts[dtype];
  const scale = float16Value(view.getUint16(at + 2 * row, true));
  const least = dtype === "q6k" ? 0 : float16Value(view.getUint16(at + 2 * (groupOutputs + row), true));
  const wordAt = (from: number, i: number) => view.getUint32(from + i * wordRow + 4 * row, true);
  const packed = [0, 1, 2].map((i) => wordAt(at + smallScales, i)) as [number, number, number];
  for (let block = 0; block < 8; block++) {
    const upper = at + blocks + block * blockSize;
    const nibbles = upper + upperWords * wordRow;
    for (let i = 0; i < blockInputs; i++) {
      const [unit, half] = [Math.floor(i / 4), Math.floor(i / 16)];
      const nibble = (wordAt(nibbles, unit % 4) >>> (8 * (i % 4) + 4 * half)) & 15;
      let value: number;
      if (dtype === "q6k") {
        const bits = (wordAt(upper, half) >>> (8 * (i % 4) + 2 * (unit % 4))) & 3;
        const small = view.getInt8(at + smallScales + (2 * block + half) * groupOutputs + row);
        value = scale * small * ((nibble | (bits << 4)) - 32);
      } else {
        const bit = dtype === "q5k" ? (wordAt(upper, 0) >>> (8 * (i % 4) + unit)) & 1 : 0;
        const [small, smallLeast] = unpackScale(packed, block);
        value = scale * small * (nibble | (bit << 4)) - least * smallLeast;
      }
      target[to + block * blockInputs + i] = value;
    }
  }
}

/** The types as files of this package hold them, which is as kernels read them. */
export function ownSuperBlockFormat(dtype: SuperBlockType): BlockFormat {
  const { size } = layouts[dtype];
  return {
    groupOutputs,
    inputsMultiple: superBlockInputs,
    computed: dtype,
    groupSize: (inputs) => Math.ceil(inputs / superBlockInputs) * size,
    decode(group, inputs, target) {
      const view = new DataView(group.buffer, group.byteOffset, group.byteLength);
      for (let row = 0; row * inputs < target.length; row++) {
        for (let from = 0; from < inputs; from += superBlockInputs) {
          decodeRow(dtype, view, (from / superBlockInputs) * size, row, target, row * inputs + from);
        }
      }
    },
    visitScales(groups, _, visit) {
      const view = new DataView(groups.buffer, groups.byteOffset, groups.byteLength);
      const count = dtype === "q6k" ? groupOutputs : 2 * groupOutputs;
      for (let at = 0; at < groups.length; at += size) {
        for (let i = 0; i < count; i++) visit(view.getUint16(at + 2 * i, true), i % groupOutputs);
      }
    },
  };
}
