// What a compute thread of the wasm backend does: sleeps until a pass begins, runs its share, says so when it was the last.

import { checkKernelStack } from "./kernel-stack.js";
import { control, type KernelExports, type WorkerMessage, type WorkerStart } from "./worker-protocol.js";

/** Runs until it is told to end, or something fails, and says what. */
export async function compute(start: WorkerStart, say: (message: WorkerMessage) => void): Promise<void> {
  const { module, memory, thread, threads, stack } = start;
  try {
    const instance = await WebAssembly.instantiate(module, { env: { memory } });
    const kernels = instance.exports as unknown as KernelExports;
    kernels.__stack_pointer.value = stack.top;
    say({ kind: "ready" });
    for (let generation = 0; ; generation++) {
      sleepUntilAfter(generation, start.control);
      if (Atomics.load(start.control, control.ended) === 1) return;
      kernels.run_pass(Atomics.load(start.control, control.pass) >>> 0, thread);
      checkKernelStack(memory, stack);
      if (Atomics.add(start.control, control.finished, 1) === threads - 1) say({ kind: "done" });
    }
  } catch (error) {
    say({ kind: "failed", message: error instanceof Error ? error.message : String(error) });
  }
}

/**
 * Sleeps until a pass after this one has begun. It looks again whenever it is woken: whoever begins a pass raises the number and
 * then wakes the sleepers, and in between a thread may have seen the number, done its share, and gone back to sleep.
 */
function sleepUntilAfter(generation: number, numbers: Int32Array): void {
  while (Atomics.load(numbers, control.generation) === generation) {
    Atomics.wait(numbers, control.generation, generation);
  }
}
