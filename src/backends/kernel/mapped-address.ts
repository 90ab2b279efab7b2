// Where tensors lie when their file is mapped.

import { byteLengthOf, isContiguous, type StoredTensor } from "../../checkpoints/checkpoint.js";
import { bytesPerElement, isBlockType } from "../../dtypes.js";
import type { KernelMachine } from "./kernel-machine.js";

/** Where a tensor lies when its file is mapped; undefined where it cannot be used as it lies there. */
export function mappedAddress(machine: KernelMachine, tensor: StoredTensor): number | undefined {
  const alignment = isBlockType(tensor.dtype) ? 2 : bytesPerElement[tensor.dtype];
  if (!isContiguous(tensor) || tensor.offset % alignment !== 0 || byteLengthOf(tensor) === 0) return undefined;
  const base = machine.map(tensor.source);
  return base === undefined ? undefined : base + tensor.offset;
}
