// The wasm backend: the same kernels compiled to WebAssembly, run by workers over shared memory. Where memory cannot be shared
// (a page without COOP and COEP headers), the calling thread runs them itself.

import { type ComputeWorker, canShareMemory, readKernels, startWorker } from "#platform/compute-workers";
import { BackendError } from "../../errors.js";
import type { Backend } from "../backend.js";
import type { Block, KernelMachine } from "../kernel/kernel-machine.js";
import { openKernelRuntime } from "../kernel/kernel-runtime.js";
import { control, type KernelExports, type WorkerMessage } from "./worker-protocol.js";

export const wasmBackend: Backend = {
  name: "wasm",
  async open(model, options) {
    return openKernelRuntime(await createWasmMachine(options.threads), model, options);
  },
};

/**
 * @param threads more than one only where memory can be shared
 * @param shared whether workers run the kernels, over shared memory
 * @throws BackendError when its threads cannot be started
 */
export async function createWasmMachine(threads: number, shared: boolean = canShareMemory): Promise<KernelMachine> {
  const kernels = await compiledKernels(shared);
  if (!shared) return new SingleThreadMachine(kernels);
  const machine = new WorkersMachine(kernels, threads);
  await machine.start();
  return machine;
}

const pageSize = 65536;
const maxPages = 65536;
const stackSize = 256 * 1024;
const alignment = 64;

interface CompiledKernels {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  readonly exports: KernelExports;
}

/** A module of one function with one instruction of relaxed SIMD, f32x4.relaxed_madd. */
const relaxedSimdProbe = Uint8Array.from([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 61, 1, 59, 0, 253, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0,
  0, 0, 0, 0, 0, 0, 0, 253, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 253, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
  0, 0, 0, 0, 0, 0, 253, 133, 2, 11,
]);

/** Whether this engine has the instructions of relaxed SIMD (https://github.com/WebAssembly/relaxed-simd). */
export function hasRelaxedSimd(): boolean {
  return WebAssembly.validate(relaxedSimdProbe);
}

const compiling = new Map<string, Promise<WebAssembly.Module>>();

async function compiledKernels(shared: boolean): Promise<CompiledKernels> {
  const name = `kernels${shared ? "" : "-single"}${hasRelaxedSimd() ? "-relaxed" : ""}.wasm`;
  let loading = compiling.get(name);
  if (!loading) {
    loading = readKernels(name).then((bytes) => WebAssembly.compile(bytes));
    loading.catch(() => compiling.delete(name));
    compiling.set(name, loading);
  }
  const module = await loading;
  const memory = new WebAssembly.Memory({ initial: 16, ...(shared && { maximum: maxPages, shared }) });
  const { exports } = await WebAssembly.instantiate(module, { env: { memory } });
  return { module, memory, exports: exports as unknown as KernelExports };
}

/** Memory of a WebAssembly instance, given out from below and never taken back. */
class WasmMemory {
  readonly #memory: WebAssembly.Memory;
  #top: number;

  constructor(memory: WebAssembly.Memory, top: number) {
    this.#memory = memory;
    this.#top = top;
  }

  allocate(size: number): Block {
    const address = Math.ceil(this.#top / alignment) * alignment;
    const end = address + size;
    const missing = Math.ceil((end - this.#memory.buffer.byteLength) / pageSize);
    try {
      if (end > maxPages * pageSize) throw new RangeError("past 4 GiB");
      if (missing > 0) this.#memory.grow(missing);
    } catch (cause) {
      throw new BackendError(`wasm backend: not enough memory for ${size} bytes beside ${this.#top}`, { cause });
    }
    this.#top = end;
    const memory = this.#memory;
    return {
      address,
      // Memory that is not shared moves when it grows.
      get bytes() {
        return new Uint8Array(memory.buffer, address, size);
      },
    };
  }
}

/** Runs passes on the calling thread. */
class SingleThreadMachine implements KernelMachine {
  readonly threads = 1;
  readonly lanes = 4; // WebAssembly's vectors have 128 bits
  readonly capacity: number = maxPages * pageSize;
  readonly #exports: KernelExports;
  readonly #memory: WasmMemory;

  constructor({ memory, exports }: CompiledKernels) {
    this.#exports = exports;
    this.#memory = new WasmMemory(memory, exports.__heap_base.value as number);
    exports.__stack_pointer.value = this.allocate(stackSize).address + stackSize;
  }

  allocate(size: number): Block {
    return this.#memory.allocate(size);
  }

  map(): undefined {
    return undefined;
  }

  async run(address: number): Promise<void> {
    this.#exports.run_pass(address, 0);
  }

  async dispose(): Promise<void> {}
}

/** Runs passes on workers. */
class WorkersMachine implements KernelMachine {
  readonly threads: number;
  readonly lanes = 4;
  readonly capacity: number = maxPages * pageSize;
  readonly #kernels: CompiledKernels;
  readonly #memory: WasmMemory;
  readonly #control: Int32Array;
  readonly #workers: ComputeWorker[] = [];
  #waiting: { resolve: () => void; reject: (error: Error) => void } | undefined;
  #failure: BackendError | undefined;

  constructor(kernels: CompiledKernels, threads: number) {
    this.threads = threads;
    this.#kernels = kernels;
    this.#memory = new WasmMemory(kernels.memory, kernels.exports.__heap_base.value as number);
    this.#control = new Int32Array(new SharedArrayBuffer(4 * control.length));
  }

  async start(): Promise<void> {
    const { module, memory } = this.#kernels;
    const ready: Promise<void>[] = [];
    for (let thread = 0; thread < this.threads; thread++) {
      const stackTop = this.allocate(stackSize).address + stackSize;
      const start = { module, memory, control: this.#control, thread, threads: this.threads, stackTop };
      ready.push(
        new Promise((resolve, reject) => {
          const onMessage = (message: WorkerMessage) => {
            if (message.kind === "ready") resolve();
            else if (message.kind === "done") this.#waiting?.resolve();
            else this.#fail(message.message);
          };
          const onError = (error: Error) => {
            this.#fail(error.message);
            reject(this.#failure);
          };
          this.#workers.push(startWorker(start, onMessage, onError));
        }),
      );
    }
    await Promise.all(ready);
    for (const worker of this.#workers) worker.keepAlive(false);
  }

  allocate(size: number): Block {
    return this.#memory.allocate(size);
  }

  map(): undefined {
    return undefined;
  }

  async run(address: number): Promise<void> {
    if (this.#failure) throw this.#failure;
    // The workers keep the process alive while they compute, and only then.
    for (const worker of this.#workers) worker.keepAlive(true);
    try {
      await new Promise<void>((resolve, reject) => {
        this.#waiting = { resolve, reject };
        Atomics.store(this.#control, control.finished, 0);
        Atomics.store(this.#control, control.pass, address);
        Atomics.add(this.#control, control.generation, 1);
        Atomics.notify(this.#control, control.generation);
      });
    } finally {
      this.#waiting = undefined;
      for (const worker of this.#workers) worker.keepAlive(false);
    }
  }

  async dispose(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  /** A thread that fails leaves the others waiting for it, so all end. */
  #fail(reason: string): void {
    this.#failure = new BackendError(`wasm backend: a compute thread failed (${reason})`);
    this.#waiting?.reject(this.#failure);
    void this.dispose();
  }
}
