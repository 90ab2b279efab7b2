// Examines the values of a stored tensor for signs of damage: NaN, infinities, nothing but zeros.

import type { BlockFormat } from "../quantization/block-format.js";
import { blockFormatOf, type StorageType } from "../quantization/storage-types.js";
import { byteLengthOf, type StoredTensor } from "./checkpoint.js";
import { blockPieces, tensorPieces } from "./read-tensor.js";

/** The result of examining a tensor. */
export interface Examination {
  /** The number of values that are NaN or infinite; for a quantized matrix the number of blocks with such a scale. */
  readonly invalid: number;
  /** The position of the first of them: its row in a matrix, its element in any other tensor. */
  readonly firstInvalid: number;
  /** Whether all values are zero. */
  readonly allZero: boolean;
}

/** Examines a whole tensor. Its checksum is not compared, so that damage does not end the examination. */
export async function examineTensor({ checksum: _, ...tensor }: StoredTensor): Promise<Examination> {
  const format = blockFormatOf(tensor.dtype);
  if (format) return examineBlocks(tensor, format);
  const width = tensor.shape.length === 2 ? (tensor.shape[1] as number) : 1;
  const isInvalid = invalidTest(tensor.dtype);
  let [invalid, firstInvalid, allZero, before] = [0, 0, byteLengthOf(tensor) > 0, 0];
  for await (const piece of tensorPieces(tensor, tensor.dtype)) {
    allZero &&= piece.every((byte) => byte === 0);
    if (!isInvalid) continue;
    const view = new DataView(piece.buffer, piece.byteOffset, piece.byteLength);
    const count = piece.byteLength / isInvalid.size;
    for (let i = 0; i < count; i++) {
      if (!isInvalid.test(view, i * isInvalid.size)) continue;
      if (invalid++ === 0) firstInvalid = Math.floor((before + i) / width);
    }
    before += count;
  }
  return { invalid, firstInvalid, allZero };
}

async function examineBlocks(tensor: StoredTensor, format: BlockFormat): Promise<Examination> {
  const inputs = tensor.shape[1] as number;
  const size = format.groupSize(inputs);
  let [invalid, firstInvalid, allZero, row] = [0, 0, byteLengthOf(tensor) > 0, 0];
  for await (const { groups } of blockPieces(tensor, 1)) {
    allZero &&= groups.every((byte) => byte === 0);
    for (let at = 0; at < groups.length; at += size, row += format.groupOutputs) {
      const before = invalid;
      let first = format.groupOutputs;
      format.visitScales(groups.subarray(at, at + size), inputs, (bits, output) => {
        if ((bits & 0x7c00) !== 0x7c00) return;
        invalid++;
        first = Math.min(first, output);
      });
      if (before === 0 && invalid > 0) firstInvalid = row + first;
    }
  }
  return { invalid, firstInvalid, allZero };
}

/** A test for values that are NaN or infinite, in which all bits of the exponent are set; undefined for integers. */
function invalidTest(dtype: StorageType): { size: number; test: (view: DataView, at: number) => boolean } | undefined {
  switch (dtype) {
    case "f64":
      return { size: 8, test: (view, at) => !Number.isFinite(view.getFloat64(at, true)) };
    case "f32":
      return { size: 4, test: (view, at) => (view.getUint32(at, true) & 0x7f800000) === 0x7f800000 };
    case "f16":
      return { size: 2, test: (view, at) => (view.getUint16(at, true) & 0x7c00) === 0x7c00 };
    case "bf16":
      return { size: 2, test: (view, at) => (view.getUint16(at, true) & 0x7f80) === 0x7f80 };
    default:
      return undefined;
  }
}
