// The wasm backend: the same kernels compiled to WebAssembly, run by workers over shared memory. It needs nothing but Node.

import { readFile } from "node:fs/promises";
import { Worker } from "node:worker_threads";
import { BackendError } from "../../errors.js";
import type { Backend } from "../backend.js";
import type { Block, KernelMachine } from "../kernel/kernel-machine.js";
import { openKernelRuntime } from "../kernel/kernel-runtime.js";
import { control, type KernelExports, type WorkerMessage, type WorkerStart } from "./worker-protocol.js";

export const wasmBackend: Backend = {
  name: "wasm",
  async open(model, options) {
    return openKernelRuntime(await createWasmMachine(options.threads), model, options);
  },
};

/** @throws BackendError when its threads cannot be started */
export function createWasmMachine(threads: number): Promise<KernelMachine> {
  return WasmMachine.create(threads);
}

const pageSize = 65536;
const maxPages = 65536;
const stackSize = 128 * 1024;
const alignment = 64;

let compiling: Promise<WebAssembly.Module> | undefined;

function compiledKernels(): Promise<WebAssembly.Module> {
  compiling ??= readFile(new URL("../../kernels.wasm", import.meta.url)).then((bytes) => WebAssembly.compile(bytes));
  return compiling;
}

class WasmMachine implements KernelMachine {
  readonly threads: number;
  readonly lanes = 4; // WebAssembly's vectors have 128 bits
  readonly #memory: WebAssembly.Memory;
  readonly #control: Int32Array;
  readonly #workers: Worker[] = [];
  #top: number;
  #waiting: { resolve: () => void; reject: (error: Error) => void } | undefined;
  #failure: BackendError | undefined;

  static async create(threads: number): Promise<WasmMachine> {
    const module = await compiledKernels();
    const memory = new WebAssembly.Memory({ initial: 16, maximum: maxPages, shared: true });
    const { exports } = await WebAssembly.instantiate(module, { env: { memory } });
    const heap = (exports as unknown as KernelExports).__heap_base.value as number;
    const machine = new WasmMachine(threads, memory, heap);
    await machine.#start(module);
    return machine;
  }

  private constructor(threads: number, memory: WebAssembly.Memory, heap: number) {
    this.threads = threads;
    this.#memory = memory;
    this.#top = heap;
    this.#control = new Int32Array(new SharedArrayBuffer(4 * control.length));
  }

  async #start(module: WebAssembly.Module): Promise<void> {
    const ready: Promise<void>[] = [];
    for (let thread = 0; thread < this.threads; thread++) {
      const stackTop = this.allocate(stackSize).address + stackSize;
      const workerData: WorkerStart = {
        module,
        memory: this.#memory,
        control: this.#control,
        thread,
        threads: this.threads,
        stackTop,
      };
      const worker = new Worker(new URL("./worker.js", import.meta.url), { workerData });
      ready.push(
        new Promise((resolve, reject) => {
          worker.on("error", (error) => {
            reject(error);
            this.#fail(error.message);
          });
          worker.on("message", (message: WorkerMessage) => {
            if (message.kind === "ready") resolve();
            else if (message.kind === "done") this.#waiting?.resolve();
            else this.#fail(message.message);
          });
        }),
      );
      this.#workers.push(worker);
    }
    await Promise.all(ready);
    for (const worker of this.#workers) worker.unref();
  }

  allocate(size: number): Block {
    const address = Math.ceil(this.#top / alignment) * alignment;
    const end = address + size;
    const missing = Math.ceil((end - this.#memory.buffer.byteLength) / pageSize);
    try {
      if (end > maxPages * pageSize) throw new RangeError("past 4 GiB");
      if (missing > 0) this.#memory.grow(missing);
    } catch (cause) {
      throw new BackendError(
        `wasm backend: the model does not fit into the 4 GiB of WebAssembly's memory (${end} bytes so far); ` +
          `use dtype "bf16" or "f16" if it was "f32", or the native backend`,
        { cause },
      );
    }
    this.#top = end;
    return { address, bytes: new Uint8Array(this.#memory.buffer, address, size) };
  }

  map(): undefined {
    return undefined;
  }

  async run(address: number): Promise<void> {
    if (this.#failure) throw this.#failure;
    // The workers keep the process alive while they compute, and only then.
    for (const worker of this.#workers) worker.ref();
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
      for (const worker of this.#workers) worker.unref();
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
