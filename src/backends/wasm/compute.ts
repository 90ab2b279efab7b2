// What a compute thread of the wasm backend does: sleeps until a pass begins, runs its share, says so when it was the last.

import { control, type KernelExports, type WorkerMessage, type WorkerStart } from "./worker-protocol.js";

/** Runs until a pass fails; a thread is otherwise ended from outside. */
export async function compute(start: WorkerStart, say: (message: WorkerMessage) => void): Promise<void> {
  const instance = await WebAssembly.instantiate(start.module, { env: { memory: start.memory } });
  const kernels = instance.exports as unknown as KernelExports;
  kernels.__stack_pointer.value = start.stackTop;
  say({ kind: "ready" });
  for (let generation = 0; ; generation++) {
    Atomics.wait(start.control, control.generation, generation);
    try {
      kernels.run_pass(Atomics.load(start.control, control.pass) >>> 0, start.thread);
      if (Atomics.add(start.control, control.finished, 1) === start.threads - 1) say({ kind: "done" });
    } catch (error) {
      say({ kind: "failed", message: String(error) });
      break;
    }
  }
}
