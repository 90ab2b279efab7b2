// Runs passes on the calling thread, for where memory cannot be shared with workers.

import { BackendError } from "../../errors.js";
import type { Block, KernelMachine } from "../kernel/kernel-machine.js";
import { readNames } from "./kernel-names.js";
import { checkKernelStack, type KernelStack, kernelStackSize, placeKernelStack } from "./kernel-stack.js";
import { type CreatedMemory, createOwnMemory, largestMemory, WasmMemory } from "./wasm-memory.js";
import type { KernelExports } from "./worker-protocol.js";

/** How long the calling thread may be kept from other tasks, such as painting the page, in milliseconds. */
const longestTask = 8;

export class SingleThreadMachine implements KernelMachine {
  readonly threads = 1;
  readonly lanes = 4; // WebAssembly's vectors have 128 bits
  readonly capacity: number;
  readonly takesFiniteHalves = true;
  readonly mapsFiles = false;
  readonly kernels: ReadonlyMap<string, number>;
  readonly functions: ReadonlyMap<string, number>;
  readonly #exports: KernelExports;
  readonly #wasm: WebAssembly.Memory;
  readonly #memory: WasmMemory;
  readonly #stack: KernelStack;
  #failure: BackendError | undefined;
  #lastTask = performance.now();

  /** @throws BackendError when there is no memory for it */
  static async create(
    module: WebAssembly.Module,
    stackSize: number = kernelStackSize,
    memoryLimit: number = largestMemory,
  ): Promise<SingleThreadMachine> {
    const created = createOwnMemory(memoryLimit);
    const { exports } = await WebAssembly.instantiate(module, { env: { memory: created.memory } });
    return new SingleThreadMachine(created, exports as unknown as KernelExports, stackSize);
  }

  private constructor(created: CreatedMemory, exports: KernelExports, stackSize: number) {
    const { kernels, functions } = readNames(created.memory, exports);
    this.kernels = kernels;
    this.functions = functions;
    this.#exports = exports;
    this.#wasm = created.memory;
    this.#memory = new WasmMemory(created, exports.__heap_base.value as number);
    this.#stack = placeKernelStack((size) => this.allocate(size), stackSize);
    exports.__stack_pointer.value = this.#stack.top;
    this.capacity = this.#memory.free;
  }

  allocate(size: number): Block {
    return this.#memory.allocate(size);
  }

  map(): undefined {
    return undefined;
  }

  readAhead(): void {}

  keepMapped(): void {}

  async run(address: number): Promise<void> {
    if (this.#failure) throw this.#failure;
    try {
      this.#exports.run_pass(address, 0);
      checkKernelStack(this.#wasm, this.#stack);
    } catch (cause) {
      this.#failure = new BackendError(`wasm backend: a pass failed (${(cause as Error).message})`, { cause });
      throw this.#failure;
    }
    // A page must be able to paint, and to abort, between the tokens of a long text.
    if (performance.now() - this.#lastTask < longestTask) return;
    await nextTask();
    this.#lastTask = performance.now();
  }

  async dispose(): Promise<void> {}
}

/** Lets the tasks that wait run first. A timer would take 4 ms in a page. */
function nextTask(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(undefined);
  });
}
