// What the checkpoint writers share: tensors that yield their bytes in pieces.

import type { DType } from "../dtypes.js";
import { byteLengthOf } from "./checkpoint.js";

/** A tensor to be written: its bytes come in pieces, row-major, little-endian; matrices in blocks group by group. */
export interface WritableTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  bytes(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** Bytes of a tensor's elements. */
export function writtenSize(tensor: WritableTensor): number {
  return byteLengthOf(tensor);
}
