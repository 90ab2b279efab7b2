// Weights to blocks that kernels read, and back: the plain forms, whatever the type.

import type { BlockType } from "../dtypes.js";
import type { BlockFormat } from "./block-format.js";
import {
  clampedBlocks as clampedOfOneScale,
  fitGroup,
  type OneScaleType,
  quantizeGroup as quantizeOneScale,
} from "./blocks.js";
import { blockFormatOf, blockFormats, type StorageType } from "./storage-types.js";

/** Whether blocks of the type have one scale each. */
export function hasOneScale(dtype: BlockType): dtype is OneScaleType {
  return dtype === "q8" || dtype === "q4";
}

/** How a type that kernels read lies in memory. */
export function layoutOf(dtype: BlockType): BlockFormat {
  return blockFormats.get(dtype) as BlockFormat;
}

/**
 * Whether matrices of a type of blocks for which there are no kernels are fitted to the type, q8: their weights are few different numbers
 * in each block, which a search for the scale comes nearer to than ggml's rule for q8.
 */
export function isFitted(stored: StorageType, dtype: BlockType): boolean {
  const format = blockFormatOf(stored);
  return dtype === "q8" && format?.computed === dtype && format.groupOutputs === 1 && !format.repack;
}

/**
 * Quantizes up to 16 rows.
 *
 * @param values [rows, inputs], rows from 1 to 16
 * @param stored their type in the file
 * @returns a group; missing rows are zeros
 */
export function quantizeGroup(
  values: Float32Array,
  inputs: number,
  dtype: BlockType,
  stored: StorageType = "f32",
): Uint8Array {
  if (isFitted(stored, dtype)) return fitGroup(values, inputs);
  if (hasOneScale(dtype)) return quantizeOneScale(values, inputs, dtype);
  throw new RangeError(`nothing is quantized to ${dtype}`);
}

/** How many blocks have the largest scale that there is: their weights were too large, and are not what they were. */
export function clampedBlocks(bytes: Uint8Array, dtype: BlockType, inputs: number): number {
  if (hasOneScale(dtype)) return clampedOfOneScale(bytes, dtype);
  let count = 0;
  layoutOf(dtype).visitScales(bytes, inputs, (bits) => {
    if ((bits & 0x7fff) === 0x7bff) count++;
  });
  return count;
}
