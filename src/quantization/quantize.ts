// Weights to blocks that kernels read, and back: the plain forms, whatever the type.

import type { BlockType } from "../dtypes.js";
import type { BlockFormat } from "./block-format.js";
import { clampedBlocks as clampedOfOneScale, type OneScaleType, quantizeGroup as quantizeOneScale } from "./blocks.js";
import { blockFormats } from "./storage-types.js";

/** Whether blocks of the type have one scale each. */
export function hasOneScale(dtype: BlockType): dtype is OneScaleType {
  return dtype === "q8" || dtype === "q4";
}

/** How a type that kernels read lies in memory. */
export function layoutOf(dtype: BlockType): BlockFormat {
  return blockFormats.get(dtype) as BlockFormat;
}

/**
 * Quantizes up to 16 rows.
 *
 * @param values [rows, inputs], rows from 1 to 16
 * @returns a group; missing rows are zeros
 */
export function quantizeGroup(values: Float32Array, inputs: number, dtype: BlockType): Uint8Array {
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
