// Makes blocks of a matrix on a kernel machine, on all its threads: when a model is loaded, or to be written to a file.

import type { StoredTensor } from "../../checkpoints/checkpoint.js";
import { tensorPieces } from "../../checkpoints/read-tensor.js";
import { type BlockType, bytesPerElement, type FloatType, isFloatType } from "../../dtypes.js";
import { groupOutputs } from "../../quantization/blocks.js";
import { isFitted, layoutOf } from "../../quantization/quantize.js";
import type { Block, KernelMachine } from "./kernel-machine.js";
import { mappedAddress } from "./mapped-address.js";
import { dtypeNumber } from "./record.js";
import { SingleRecord } from "./single-record.js";

/** Rows are brought to the machine in pieces of about this size. */
const pieceSize = 2 ** 21;

/** Quantizes matrices, one at a time. */
export class Quantizer {
  readonly #machine: KernelMachine;
  readonly #record: SingleRecord;
  #staging: Block | undefined;

  constructor(machine: KernelMachine) {
    this.#machine = machine;
    this.#record = new SingleRecord(machine);
  }

  /**
   * @param tensor a matrix [outputs, inputs], of any type of numbers or blocks
   * @param address where the machine has room for its blocks
   * @throws CheckpointError when it cannot be read
   */
  async quantize(tensor: StoredTensor, dtype: BlockType, address: number): Promise<void> {
    const [outputs, inputs] = tensor.shape as [number, number];
    const mapped = mappedAddress(this.#machine, tensor);
    if (mapped !== undefined && isFloatType(tensor.dtype)) {
      return this.#run({ address: mapped, dtype: tensor.dtype, outputs, inputs }, { address, dtype, isFitted: false });
    }
    const type: FloatType = isFloatType(tensor.dtype) ? tensor.dtype : "f32";
    const rowBytes = inputs * bytesPerElement[type];
    const groups = Math.max(1, Math.floor(pieceSize / (groupOutputs * rowBytes)));
    const staging = this.#stagingOf(groups * groupOutputs * rowBytes);
    let filled = 0;
    let row = 0;
    const flush = async () => {
      const rows = filled / rowBytes;
      const to = address + (row / groupOutputs) * layoutOf(dtype).groupSize(inputs);
      const from = { address: staging.address, dtype: type, outputs: rows, inputs };
      await this.#run(from, { address: to, dtype, isFitted: isFitted(tensor.dtype, dtype) });
      row += rows;
      filled = 0;
    };
    for await (const piece of tensorPieces(tensor, type)) {
      for (let at = 0; at < piece.length; ) {
        const part = piece.subarray(at, at + groups * groupOutputs * rowBytes - filled);
        staging.bytes.set(part, filled);
        filled += part.length;
        at += part.length;
        if (filled === groups * groupOutputs * rowBytes) await flush();
      }
    }
    if (filled > 0) await flush();
  }

  #stagingOf(size: number): Block {
    if (!this.#staging || this.#staging.bytes.length < size) this.#staging = this.#machine.allocate(size);
    return this.#staging;
  }

  /** The record is that of kernels/quantize_weights.c. */
  #run(
    from: { address: number; dtype: FloatType; outputs: number; inputs: number },
    to: { address: number; dtype: BlockType; isFitted: boolean },
  ): Promise<void> {
    return this.#record.run({
      kernel: "quantizeWeights",
      matrix: { dtype: from.dtype, rows: from.outputs, columns: from.inputs },
      width: from.outputs,
      inputs: from.inputs,
      attributes: [{ count: dtypeNumber(to.dtype) }, { count: Number(to.isFitted) }],
      addresses: [from.address, to.address],
    });
  }
}
