// Runs passes on workers, over memory that they share.

import { startWorker } from "#platform/compute-workers";
import { BackendError } from "../../errors.js";
import type { ComputeWorker } from "../../platform/platform.js";
import type { Block, KernelMachine, KernelNumbers } from "../kernel/kernel-machine.js";
import { readNames } from "./kernel-names.js";
import { kernelStackSize, placeKernelStack } from "./kernel-stack.js";
import { createSharedMemory, largestMemory, WasmMemory } from "./wasm-memory.js";
import { control, type KernelExports, type WorkerMessage, type WorkerStart } from "./worker-protocol.js";

/** Ends the workers of machines that were dropped without dispose(). */
const dropped = new FinalizationRegistry<ComputeThreads>((threads) => threads.end("the model was dropped"));

export class WorkersMachine implements KernelMachine {
  readonly threads: number;
  readonly lanes = 4; // WebAssembly's vectors have 128 bits
  readonly capacity: number;
  readonly takesFiniteHalves = true;
  readonly mapsFiles = false;
  readonly kernels: ReadonlyMap<string, number>;
  readonly functions: ReadonlyMap<string, number>;
  readonly #memory: WasmMemory;
  readonly #computing: ComputeThreads;

  /** @throws BackendError when there is no memory to share, or a worker cannot be started */
  static async create(
    module: WebAssembly.Module,
    threads: number,
    stackSize: number = kernelStackSize,
    memoryLimit: number = largestMemory,
  ): Promise<WorkersMachine> {
    const created = createSharedMemory(memoryLimit);
    const { exports } = await WebAssembly.instantiate(module, { env: { memory: created.memory } });
    const kernels = exports as unknown as KernelExports;
    const memory = new WasmMemory(created, kernels.__heap_base.value as number);
    const stacks = Array.from({ length: threads }, () => placeKernelStack((size) => memory.allocate(size), stackSize));
    const computing = new ComputeThreads();
    try {
      await Promise.all(
        stacks.map((stack, thread) => {
          const start = { module, memory: created.memory, control: computing.control, thread, threads, stack };
          return computing.start(start);
        }),
      );
    } catch (error) {
      await computing.end("a compute thread could not be started");
      throw error;
    }
    return new WorkersMachine(memory, computing, threads, readNames(created.memory, kernels));
  }

  private constructor(memory: WasmMemory, computing: ComputeThreads, threads: number, numbers: KernelNumbers) {
    this.kernels = numbers.kernels;
    this.functions = numbers.functions;
    this.threads = threads;
    this.capacity = memory.free;
    this.#memory = memory;
    this.#computing = computing;
    dropped.register(this, computing, this);
  }

  allocate(size: number): Block {
    return this.#memory.allocate(size);
  }

  map(): undefined {
    return undefined;
  }

  readAhead(): void {}

  keepMapped(): void {}

  run(address: number): Promise<void> {
    return this.#computing.run(address);
  }

  async dispose(): Promise<void> {
    dropped.unregister(this);
    await this.#computing.end("the model was disposed");
  }
}

/** The workers. They do not hold the machine, so that a machine that nobody holds can be collected, and its workers ended. */
class ComputeThreads {
  readonly control: Int32Array = new Int32Array(new SharedArrayBuffer(4 * control.length));
  readonly #workers: ComputeWorker[] = [];
  #waiting: { resolve: () => void; reject: (error: Error) => void } | undefined;
  #failure: BackendError | undefined;

  /** Starts one worker, and waits until it is ready. */
  async start(start: WorkerStart): Promise<void> {
    let worker: ComputeWorker | undefined;
    await new Promise<void>((resolve, reject) => {
      const fail = (reason: string) => {
        reject(this.#fail(`a compute thread failed (${reason})`));
      };
      const onMessage = (message: WorkerMessage) => {
        if (message.kind === "ready") resolve();
        else if (message.kind === "done") this.#waiting?.resolve();
        else fail(message.message);
      };
      try {
        worker = startWorker(start, onMessage, (error) => fail(error.message));
        this.#workers.push(worker);
      } catch (error) {
        fail((error as Error).message);
      }
    });
    worker?.keepAlive(false);
  }

  async run(address: number): Promise<void> {
    if (this.#failure) throw this.#failure;
    // The workers keep the process alive while they compute, and only then.
    for (const worker of this.#workers) worker.keepAlive(true);
    try {
      await new Promise<void>((resolve, reject) => {
        this.#waiting = { resolve, reject };
        Atomics.store(this.control, control.finished, 0);
        Atomics.store(this.control, control.pass, address);
        this.#wake();
      });
    } finally {
      this.#waiting = undefined;
      for (const worker of this.#workers) worker.keepAlive(false);
    }
  }

  /** Ends all workers; a pass in progress fails with the reason. */
  async end(reason: string): Promise<void> {
    this.#failure ??= new BackendError(`wasm backend: ${reason}`);
    this.#waiting?.reject(this.#failure);
    Atomics.store(this.control, control.ended, 1);
    this.#wake();
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  /** Wakes the workers that sleep between passes. */
  #wake(): void {
    Atomics.add(this.control, control.generation, 1);
    Atomics.notify(this.control, control.generation);
  }

  /** A thread that fails leaves the others waiting for it, so all end. */
  #fail(reason: string): BackendError {
    void this.end(reason);
    return this.#failure as BackendError;
  }
}
