// Workers and the kernels' WebAssembly, as Node has them. src/platform/browser/compute-workers.ts has the same for pages.

import { readFile } from "node:fs/promises";
import { Worker } from "node:worker_threads";
import type { WorkerMessage, WorkerStart } from "../../backends/wasm/worker-protocol.js";

/** A compute thread. */
export interface ComputeWorker {
  /** Whether it keeps the process alive. */
  keepAlive(yes: boolean): void;
  terminate(): Promise<void>;
}

/** Whether memory can be shared with workers. */
export const canShareMemory: boolean = true;

/** A file of the package's dist folder. */
export function readKernels(name: string): Promise<Uint8Array<ArrayBuffer>> {
  return readFile(new URL(`../../${name}`, import.meta.url)) as Promise<Uint8Array<ArrayBuffer>>;
}

export function startWorker(
  start: WorkerStart,
  onMessage: (message: WorkerMessage) => void,
  onError: (error: Error) => void,
): ComputeWorker {
  const worker = new Worker(new URL("./worker.js", import.meta.url), { workerData: start });
  worker.on("message", onMessage);
  worker.on("error", onError);
  return {
    keepAlive: (yes) => (yes ? worker.ref() : worker.unref()),
    terminate: async () => void (await worker.terminate()),
  };
}
