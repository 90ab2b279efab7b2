// The wasm backend: the same kernels compiled to WebAssembly, run by workers over shared memory. Where memory cannot be shared
// (a page without COOP and COEP headers), the calling thread runs them itself.

import { canShareMemory } from "#platform/compute-workers";
import { BackendError } from "../../errors.js";
import type { Backend, BackendModel, OpenOptions } from "../backend.js";
import type { KernelMachine } from "../kernel/kernel-machine.js";
import { openKernelRuntime } from "../kernel/kernel-runtime.js";
import { checkCapacity } from "../kernel/matrices.js";
import { matrixTypes } from "../placement.js";
import { compiledKernels, type KernelSet, type ReadKernels } from "./compiled-kernels.js";
import { SingleThreadMachine } from "./single-thread-machine.js";
import { WorkersMachine } from "./workers-machine.js";

export const wasmBackend: Backend = {
  name: "wasm",
  async open(model, options) {
    return openKernelRuntime(await machineFor(model, options), model, options);
  },
};

/**
 * @param threads more than one only where memory can be shared
 * @param shared whether workers run the kernels, over shared memory
 * @param set which kernels are needed
 * @param read where their files are found
 * @throws BackendError when its threads cannot be started
 */
export async function createWasmMachine(
  threads: number,
  shared: boolean = canShareMemory,
  set: KernelSet = "generation",
  read?: ReadKernels,
): Promise<KernelMachine> {
  const kernels = await compiledKernels(shared, set, read);
  return shared ? WorkersMachine.create(kernels, threads) : SingleThreadMachine.create(kernels);
}

/** Threads where they can be had, else the calling thread: a content security policy may forbid workers, for example. */
async function machineFor(model: BackendModel, { threads, dtype, onNotice }: OpenOptions): Promise<KernelMachine> {
  if (!canShareMemory) return createWasmMachine(1, false);
  let machine: KernelMachine | undefined;
  try {
    machine = await createWasmMachine(threads, true);
    checkCapacity(machine, model, matrixTypes(model.graph, model.tensors, dtype));
    return machine;
  } catch (error) {
    await machine?.dispose();
    if (!(error instanceof BackendError)) throw error;
    const alone = await createWasmMachine(1, false);
    // Memory that is not shared may grow larger than what the engine would share.
    if (machine && alone.capacity <= machine.capacity) throw error;
    onNotice?.(`${error.message}; computing on the calling thread`);
    return alone;
  }
}
