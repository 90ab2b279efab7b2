// The wasm backend: the same kernels compiled to WebAssembly, run by workers over shared memory. Where memory cannot be shared
// (a page without COOP and COEP headers), the calling thread runs them itself. A model that one memory does not hold takes several.

import { canShareMemory } from "#platform/compute-workers";
import { BackendError } from "../../errors.js";
import type { Graph } from "../../graph/graph.js";
import type { Backend, BackendModel, OpenOptions } from "../backend.js";
import type { KernelMachine } from "../kernel/kernel-machine.js";
import { openKernelRuntime } from "../kernel/kernel-runtime.js";
import { matrixBytes } from "../kernel/memory-need.js";
import type { Share } from "../split-runtime.js";
import { compiledKernels, type KernelSet, type ReadKernels } from "./compiled-kernels.js";
import { kernelStackSize } from "./kernel-stack.js";
import { SingleThreadMachine } from "./single-thread-machine.js";
import { uncounted } from "./wasm-memory.js";
import { WorkersMachine } from "./workers-machine.js";

export const wasmBackend: Backend = {
  name: "wasm",
  async open(model, options) {
    const { machines, layers } = await machinesFor(model, options);
    const [machine, ...others] = machines as [KernelMachine, ...KernelMachine[]];
    if (others.length === 0) return openKernelRuntime(machine, model, options);
    try {
      const { openSplit } = await import("../split-runtime.js");
      const shares = machines.map(
        (own, i): Share => ({
          backend: { name: "wasm", open: (part, partOptions) => openKernelRuntime(own, part, partOptions) },
          layers: layers[i] as number,
        }),
      );
      // A graph that is divided is whole.
      return await openSplit({ graph: model.graph as Graph, tensors: model.tensors }, shares, options);
    } catch (error) {
      await disposeAll(machines); // of parts that were not begun, too
      throw error;
    }
  },
};

/**
 * @param threads more than one only where memory can be shared
 * @param shared whether workers run the kernels, over shared memory
 * @param set which kernels are needed
 * @param read where their files are found
 * @param memoryLimit the most bytes that its memory may have; by default what 32-bit addresses reach
 * @throws BackendError when its threads cannot be started
 */
export async function createWasmMachine(
  threads: number,
  shared: boolean = canShareMemory,
  set: KernelSet = "generation",
  read?: ReadKernels,
  memoryLimit?: number,
): Promise<KernelMachine> {
  const kernels = await compiledKernels(shared, set, read);
  return shared
    ? WorkersMachine.create(kernels, threads, kernelStackSize, memoryLimit)
    : SingleThreadMachine.create(kernels, kernelStackSize, memoryLimit);
}

/** As many machines as a model needs, and how many of its layers each has. */
interface Machines {
  readonly machines: readonly KernelMachine[];
  readonly layers: readonly number[];
}

/** Threads where they can be had, else the calling thread: a content security policy may forbid workers, for example. */
async function machinesFor(model: BackendModel, options: OpenOptions): Promise<Machines> {
  if (!canShareMemory) return enoughMachines(model, options, false);
  try {
    return await enoughMachines(model, options, true);
  } catch (error) {
    if (!(error instanceof BackendError)) throw error;
    // Memory that is not shared may grow larger than what the engine would share.
    const alone = await enoughMachines(model, options, false);
    options.onNotice?.(`${error.message}; computing on the calling thread`);
    return alone;
  }
}

/** @throws BackendError where the engine refuses what is needed, or no division would do */
async function enoughMachines(model: BackendModel, options: OpenOptions, shared: boolean): Promise<Machines> {
  const { threads, memoryLimit } = options;
  const machines: KernelMachine[] = [];
  try {
    for (let missing = 1; ; ) {
      const creating = Array.from({ length: missing }, () =>
        createWasmMachine(shared ? threads : 1, shared, "generation", undefined, memoryLimit),
      );
      const created = await Promise.allSettled(creating);
      machines.push(...created.flatMap((each) => (each.status === "fulfilled" ? [each.value] : [])));
      await Promise.all(creating); // throws where one was refused
      // An engine may give later memories less than the first.
      const layers = await layersFor(model, Math.min(...machines.map(({ capacity }) => capacity)), options);
      missing = layers.length - machines.length;
      if (missing <= 0) return { machines, layers };
    }
  } catch (error) {
    await disposeAll(machines);
    throw error;
  }
}

/** @returns how many layers each memory has; of a small model, of which that is certain, one number */
async function layersFor(model: BackendModel, capacity: number, options: OpenOptions): Promise<readonly number[]> {
  if (matrixBytes(model, options) <= (capacity - uncounted) / 4) return [model.graph.checkpoints?.length ?? 1];
  // A page that has only small models need not fetch this.
  return (await import("./division.js")).divide(model, capacity, options);
}

async function disposeAll(machines: readonly KernelMachine[]): Promise<void> {
  await Promise.all(machines.map((machine) => machine.dispose()));
}
