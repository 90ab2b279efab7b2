// The types that a tensor can have in a file. Elements of numbers are dtypes.ts's; each type of blocks is a file of
// its own, listed here. Which of the types that kernels compute with a matrix gets is another question, and
// backends/placement.ts answers it.

import { bytesPerElement, type ElementType, elementCount, isElementType } from "../dtypes.js";
import type { BlockFormat } from "./block-format.js";
import { ownFormat } from "./blocks.js";
import * as ggml from "./ggml-blocks.js";
import * as ggmlSuper from "./ggml-super-blocks.js";
import { ownSuperBlockFormat } from "./super-blocks.js";

const formats = {
  q8: ownFormat("q8"),
  q4: ownFormat("q4"),
  q4k: ownSuperBlockFormat("q4k"),
  q5k: ownSuperBlockFormat("q5k"),
  q6k: ownSuperBlockFormat("q6k"),
  Q8_0: ggml.q8_0,
  Q4_0: ggml.q4_0,
  Q4_1: ggml.q4_1,
  Q5_0: ggml.q5_0,
  Q5_1: ggml.q5_1,
  Q2_K: ggmlSuper.q2_k,
  Q3_K: ggmlSuper.q3_k,
  Q4_K: ggmlSuper.q4_k,
  Q5_K: ggmlSuper.q5_k,
  Q6_K: ggmlSuper.q6_k,
  IQ4_NL: ggml.iq4_nl,
  IQ4_XS: ggmlSuper.iq4_xs,
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
