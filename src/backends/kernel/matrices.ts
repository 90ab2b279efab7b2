// Brings the weight matrices of a model into a kernel machine's memory.

import { byteLengthOf, type StoredTensor } from "../../checkpoints/checkpoint.js";
import { describeOverflow } from "../../checkpoints/read-tensor.js";
import { isBlockType, noOverflow, type WeightDType, weightDTypes } from "../../dtypes.js";
import { BackendError } from "../../errors.js";
import type { Graph, WeightNode } from "../../graph/graph.js";
import { matrixTypes, tensorOf } from "../weights.js";
import { Converter } from "./converter.js";
import type { KernelMachine } from "./kernel-machine.js";
import { mappedAddress } from "./mapped-address.js";
import { Quantizer } from "./quantizer.js";

/** A matrix in a machine's memory. */
export interface PlacedMatrix {
  readonly address: number;
  readonly dtype: WeightDType;
  /** The memory, where it was not mapped from a file. */
  readonly bytes?: () => Uint8Array;
}

/** Weights by name, and the graph they are of. */
export interface Weights {
  readonly graph: Graph;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
}

/** Beside the matrices a machine holds vectors, states and the arena; what they need is far below this share of it. */
const shareForMatrices = 0.95;

/** @throws BackendError when the matrices do not fit, with the types that would */
export function checkCapacity(
  machine: KernelMachine,
  model: Weights,
  types: ReadonlyMap<WeightNode, WeightDType>,
): void {
  const room = machine.capacity * shareForMatrices;
  const sizeOf = (all: ReadonlyMap<WeightNode, WeightDType>) =>
    [...all].reduce((sum, [{ shape }, dtype]) => sum + byteLengthOf({ dtype, shape }), 0);
  const needed = sizeOf(types);
  if (needed <= room) return;
  const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const fitting = weightDTypes
    .map((dtype) => ({ dtype, size: sizeOf(matrixTypes(model.graph, model.tensors, dtype)) }))
    .filter(({ size }) => size <= room)
    .map(({ dtype, size }) => `dtype "${dtype}" (${gib(size)})`);
  throw new BackendError(
    `the model's matrices take ${gib(needed)}, and WebAssembly has ${gib(machine.capacity)} of memory; ` +
      (fitting.length > 0 ? `${fitting.join(", ")} would fit` : "no dtype would fit; use the native backend"),
  );
}

/**
 * Maps matrices whose stored form is the one wanted; copies, converts or quantizes the others.
 *
 * @param changing matrices that will be written to, so may not be mapped
 */
export async function placeMatrices(
  machine: KernelMachine,
  { tensors }: Weights,
  types: ReadonlyMap<WeightNode, WeightDType>,
  onProgress?: (done: number, total: number) => void,
  changing: ReadonlySet<WeightNode> = new Set(),
  onNotice?: (message: string) => void,
): Promise<Map<WeightNode, PlacedMatrix>> {
  const matrices = new Map<WeightNode, PlacedMatrix>();
  const quantizer = new Quantizer(machine);
  const converter = new Converter(machine);
  const total = [...types.keys()].reduce((sum, weight) => sum + byteLengthOf(tensorOf(tensors, weight)), 0);
  let done = 0;
  for (const [weight, dtype] of types) {
    const tensor = tensorOf(tensors, weight);
    const mapped = tensor.dtype === dtype && !changing.has(weight) ? mappedAddress(machine, tensor) : undefined;
    if (mapped !== undefined) {
      matrices.set(weight, { address: mapped, dtype });
    } else {
      const block = machine.allocate(byteLengthOf({ dtype, shape: weight.shape }));
      if (!isBlockType(dtype)) {
        const overflow = noOverflow();
        await converter.convert(tensor, dtype, block, overflow);
        if (overflow.count > 0) onNotice?.(describeOverflow(tensor, dtype, overflow));
      } else if (tensor.dtype === dtype) await tensor.source.readInto(tensor.offset, block.bytes);
      else await quantizer.quantize(tensor, dtype, block.address);
      matrices.set(weight, { address: block.address, dtype, bytes: () => block.bytes });
    }
    done += byteLengthOf(tensor);
    onProgress?.(done, total);
  }
  return matrices;
}
