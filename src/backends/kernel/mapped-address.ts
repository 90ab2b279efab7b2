// Where tensors lie when their file is mapped.

import type { StoredTensor } from "../../checkpoints/checkpoint.js";
import { isUsableAsItLies } from "../placement.js";
import type { KernelMachine } from "./kernel-machine.js";

/** Where a tensor lies when its file is mapped; undefined where it cannot be used as it lies there, or is not there as a whole. */
export function mappedAddress(machine: KernelMachine, tensor: StoredTensor): number | undefined {
  const { arrival } = tensor.source;
  if (!isUsableAsItLies(tensor) || arrival?.isWhole === false) return undefined;
  const base = machine.map(tensor.source);
  return base === undefined ? undefined : base + tensor.offset;
}
