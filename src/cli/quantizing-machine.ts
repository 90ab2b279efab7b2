// Makes blocks of matrices that are to be written: on the kernels' threads, native or, where there is no compiler, in
// WebAssembly. The machine is started when it is first needed.

import { defaultThreads } from "#platform/backends";
import type { KernelMachine } from "../backends/kernel/kernel-machine.js";
import { Quantizer } from "../backends/kernel/quantizer.js";
import { createNativeMachine } from "../backends/native/native.js";
import { createWasmMachine } from "../backends/wasm/wasm.js";
import { byteLengthOf, type StoredTensor } from "../checkpoints/checkpoint.js";
import { describeClamped } from "../checkpoints/read-tensor.js";
import type { BlockType } from "../dtypes.js";
import { BackendError, CheckpointError } from "../errors.js";
import { clampedBlocks } from "../quantization/quantize.js";

export class QuantizingMachine {
  #started:
    | { machine: KernelMachine; quantizer: Quantizer; staging?: { address: number; bytes: Uint8Array } }
    | undefined;

  /**
   * The blocks of a matrix, valid until the next is asked for.
   *
   * @throws CheckpointError where its weights are too large for the type's scales
   */
  async blocksOf(tensor: StoredTensor, dtype: BlockType): Promise<Uint8Array> {
    this.#started ??= await startQuantizer();
    const size = byteLengthOf({ dtype, shape: tensor.shape });
    let { staging } = this.#started;
    if (!staging || staging.bytes.length < size) staging = this.#started.machine.allocate(size);
    this.#started.staging = staging;
    await this.#started.quantizer.quantize(tensor, dtype, staging.address);
    const blocks = staging.bytes.subarray(0, size);
    const clamped = clampedBlocks(blocks, dtype, tensor.shape[1] as number);
    if (clamped > 0) throw new CheckpointError(tensor.source.name, describeClamped(tensor, dtype, clamped));
    return blocks;
  }

  async dispose(): Promise<void> {
    await this.#started?.machine.dispose();
  }
}

async function startQuantizer() {
  const threads = defaultThreads();
  const machine = await createNativeMachine(threads).catch((error) => {
    if (!(error instanceof BackendError)) throw error;
    return createWasmMachine(threads);
  });
  return { machine, quantizer: new Quantizer(machine) };
}
