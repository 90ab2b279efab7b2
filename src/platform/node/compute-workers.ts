// Workers and the kernels' WebAssembly, as Node has them. src/platform/browser/compute-workers.ts has the same for pages.

import { readFile } from "node:fs/promises";
import { Worker } from "node:worker_threads";
import type { ComputeWorker } from "../platform.js";

/** Whether memory can be shared with workers. */
export const canShareMemory: boolean = true;

/** A file of the package's dist folder, and where it is. */
export async function readKernels(name: string): Promise<{ bytes: Uint8Array<ArrayBuffer>; location: string }> {
  const url = new URL(`../../${name}`, import.meta.url);
  return { bytes: (await readFile(url)) as Uint8Array<ArrayBuffer>, location: url.href };
}

/** Starts a compute thread. `onError` is called when it cannot be started, fails outside a pass, or ends unasked. */
export function startWorker<Message>(
  start: object,
  onMessage: (message: Message) => void,
  onError: (error: Error) => void,
): ComputeWorker {
  const worker = new Worker(new URL("./worker.js", import.meta.url), {
    workerData: start,
    // The process's own flags are for its own script: with --input-type or --eval no worker starts.
    execArgv: [],
  });
  let ending = false;
  worker.on("message", onMessage);
  worker.on("error", onError);
  worker.on("exit", (code) => ending || onError(new Error(`it ended with exit code ${code}`)));
  return {
    keepAlive: (yes) => (yes ? worker.ref() : worker.unref()),
    terminate: async () => {
      ending = true;
      await worker.terminate();
    },
  };
}
