// The types that a tensor can have in a file. Elements of numbers are dtypes.ts's; each type of blocks is a file of
// its own, listed here. Which of the types that kernels compute with a matrix gets is another question, and
// backends/placement.ts answers it.

import { bytesPerElement, type ElementType, elementCount, isElementType } from "../dtypes.js";
import type { BlockFormat } from "./block-format.js";
import { ownFormat } from "./blocks.js";

const formats = {
  q8: ownFormat("q8"),
  q4: ownFormat("q4"),
} as const satisfies Record<string, BlockFormat>;

/** Type of a tensor in a file. */
export type StorageType = ElementType | keyof typeof formats;

/** All types of blocks by name. */
export const blockFormats: ReadonlyMap<string, BlockFormat> = new Map(Object.entries(formats));

/** How a matrix of the type lies in its file; undefined for types whose elements stand alone. */
export function blockFormatOf(dtype: StorageType): BlockFormat | undefined {
  return isElementType(dtype) ? undefined : blockFormats.get(dtype);
}

/** Bytes of a tensor that lies without gaps. */
export function storedSize(dtype: StorageType, shape: readonly number[]): number {
  if (isElementType(dtype)) return elementCount(shape) * bytesPerElement[dtype];
  const { groupOutputs, groupSize } = blockFormats.get(dtype) as BlockFormat;
  const [outputs, inputs] = shape as [number, number];
  return Math.ceil(outputs / groupOutputs) * groupSize(inputs);
}
