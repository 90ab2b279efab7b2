// How the wasm backend and its workers talk: through a few integers in shared memory, and one message when a pass is done.

import type { KernelStack } from "./kernel-stack.js";

/** What a worker is started with. */
export interface WorkerStart {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  /** Integers by the indices below. */
  readonly control: Int32Array;
  readonly thread: number;
  readonly threads: number;
  readonly stack: KernelStack;
}

/** What a worker says: ready to work, all threads have done the pass, or this thread failed, at its start or in a pass. */
export type WorkerMessage =
  | { readonly kind: "ready" }
  | { readonly kind: "done" }
  | { readonly kind: "failed"; readonly message: string };

export const control = {
  /** Number of passes begun; workers sleep until it changes. */
  generation: 0,
  /** Address of the pass. */
  pass: 1,
  /** Threads that have finished the pass. */
  finished: 2,
  /** 1 when workers are to end: one that sleeps would be ended from outside only after seconds in a page. */
  ended: 3,
  length: 4,
} as const;

/** The kernels' exports. */
export interface KernelExports {
  run_pass(pass: number, thread: number): void;
  /** Addresses of lists of names, each ended by a comma, with a zero at the end. */
  kernel_names(): number;
  function_names(): number;
  readonly __stack_pointer: WebAssembly.Global;
  readonly __heap_base: WebAssembly.Global;
}
