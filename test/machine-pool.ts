// Machines of WebAssembly that serve one test after the other: a worker takes longer to start than most models of tests to compute.

import type { Block, KernelMachine } from "#rwkv/backends/kernel/kernel-machine";
import type { KernelSet } from "#rwkv/backends/wasm/compiled-kernels";
import { createWasmMachine } from "#rwkv/backends/wasm/wasm";

/** Machines that nobody uses, by their kind. */
const idle = new Map<string, LentMachine[]>();

/** Memory of WebAssembly is never given back; a machine that gave out as many bytes as this is not used again. */
const mostLent = 2 ** 27;

/**
 * A machine as `createWasmMachine` makes it, perhaps one that has served before; `dispose` gives it back, unless a pass of it
 * failed. What is left when a test file ends goes with its process or page.
 */
export async function lentWasmMachine(threads: number, shared: boolean, set: KernelSet): Promise<KernelMachine> {
  const kind = `${threads} ${shared} ${set}`;
  return idle.get(kind)?.pop() ?? new LentMachine(await createWasmMachine(threads, shared, set), kind);
}

class LentMachine implements KernelMachine {
  readonly threads: number;
  readonly lanes: number;
  readonly capacity: number;
  readonly takesFiniteHalves: boolean;
  readonly mapsFiles = false;
  readonly kernels: ReadonlyMap<string, number>;
  readonly functions: ReadonlyMap<string, number>;
  readonly #machine: KernelMachine;
  readonly #kind: string;
  #lent = 0;
  #hasFailed = false;

  constructor(machine: KernelMachine, kind: string) {
    this.threads = machine.threads;
    this.lanes = machine.lanes;
    this.capacity = machine.capacity;
    this.takesFiniteHalves = machine.takesFiniteHalves;
    this.kernels = machine.kernels;
    this.functions = machine.functions;
    this.#machine = machine;
    this.#kind = kind;
  }

  allocate(size: number): Block {
    this.#lent += size;
    return this.#machine.allocate(size);
  }

  map(): undefined {
    return undefined;
  }

  readAhead(): void {}

  keepMapped(): void {}

  async run(address: number): Promise<void> {
    try {
      await this.#machine.run(address);
    } catch (error) {
      this.#hasFailed = true;
      throw error;
    }
  }

  async dispose(): Promise<void> {
    if (this.#hasFailed || this.#lent > mostLent) return this.#machine.dispose();
    idle.set(this.#kind, [...(idle.get(this.#kind) ?? []), this]);
  }
}
