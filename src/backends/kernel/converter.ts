// Brings matrices to another type of floating point number on a kernel machine, on all its threads, from where their
// file is mapped.

import type { StoredTensor } from "../../checkpoints/checkpoint.js";
import { readTensorInto } from "../../checkpoints/read-tensor.js";
import { type FloatType, isFloatType, type Overflow } from "../../dtypes.js";
import type { Block, KernelMachine } from "./kernel-machine.js";
import { mappedAddress } from "./mapped-address.js";
import { dtypeNumber } from "./record.js";
import { SingleRecord } from "./single-record.js";

/** Converts matrices, one at a time. */
export class Converter {
  readonly #machine: KernelMachine;
  #record: SingleRecord | undefined;

  constructor(machine: KernelMachine) {
    this.#machine = machine;
  }

  /**
   * Puts a matrix [outputs, inputs] into `block` as elements of type `dtype`, to the same bits whether it is mapped
   * or read piece by piece.
   *
   * @param overflow counts finite values that become infinite
   * @throws CheckpointError when it cannot be read
   */
  async convert(tensor: StoredTensor, dtype: FloatType, block: Block, overflow?: Overflow): Promise<void> {
    const from = tensor.dtype;
    const mapped = from === "f64" || isFloatType(from) ? mappedAddress(this.#machine, tensor) : undefined;
    if (mapped === undefined || from === dtype) {
      return readTensorInto(tensor, dtype, block.bytes, overflow);
    }
    this.#record ??= new SingleRecord(this.#machine);
    const [outputs, inputs] = tensor.shape as [number, number];
    await this.#record.run({
      kernel: "convertWeights",
      matrix: { dtype: from as FloatType | "f64", rows: outputs, columns: inputs },
      width: outputs,
      inputs,
      attributes: [{ count: dtypeNumber(dtype) }],
      addresses: [mapped, block.address],
    });
    // Seldom: the plain form counts what the type cannot hold.
    const narrows = dtype !== "f32" || from === "f64";
    if (overflow && narrows && hasInfinity(block.bytes, dtype)) {
      await readTensorInto(tensor, dtype, block.bytes, overflow);
    }
  }
}

/** The bits of infinity in each type, without its sign. */
const infinities: Readonly<Record<FloatType, number>> = { f32: 0x7f800000, f16: 0x7c00, bf16: 0x7f80 };

function hasInfinity({ buffer, byteOffset, byteLength }: Uint8Array, dtype: FloatType): boolean {
  const infinity = infinities[dtype];
  const words =
    dtype === "f32"
      ? new Uint32Array(buffer, byteOffset, byteLength / 4)
      : new Uint16Array(buffer, byteOffset, byteLength / 2);
  const magnitude = dtype === "f32" ? 0x7fffffff : 0x7fff;
  for (let i = 0; i < words.length; i++) if (((words[i] as number) & magnitude) === infinity) return true;
  return false;
}
