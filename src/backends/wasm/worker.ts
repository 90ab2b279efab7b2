// A compute thread of the wasm backend: sleeps until a pass begins, runs its share, says so when it was the last.

import { parentPort, workerData } from "node:worker_threads";
import { control, type KernelExports, type WorkerMessage, type WorkerStart } from "./worker-protocol.js";

const start = workerData as WorkerStart;
const say = (message: WorkerMessage) => parentPort?.postMessage(message);
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
