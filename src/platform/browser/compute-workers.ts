// Workers and the kernels' WebAssembly in a page. src/platform/node/compute-workers.ts has the same for Node.

import type { ComputeWorker } from "../platform.js";
import { readKernelsFrom } from "./kernel-files.js";
import { movedFrom } from "./moved-files.js";

/** Pages that are not isolated by COOP and COEP headers may not share memory with workers. */
export const canShareMemory: boolean = globalThis.crossOriginIsolated === true;

/** The files of kernels that pages generate with, written out, so that bundlers find them. */
const kernelFiles: Readonly<Record<string, URL>> = {
  "kernels.wasm": new URL("../../kernels.wasm", import.meta.url),
  "kernels-relaxed.wasm": new URL("../../kernels-relaxed.wasm", import.meta.url),
  "kernels-single.wasm": new URL("../../kernels-single.wasm", import.meta.url),
  "kernels-single-relaxed.wasm": new URL("../../kernels-single-relaxed.wasm", import.meta.url),
};

/** A file of the package's dist folder, and where it is. */
export function readKernels(name: string): Promise<{ bytes: Uint8Array<ArrayBuffer>; location: string }> {
  return readKernelsFrom(kernelFiles, name);
}

/** Starts a compute thread. `onError` is called when it cannot be started or fails outside a pass. */
export function startWorker<Message>(
  start: object,
  onMessage: (message: Message) => void,
  onError: (error: Error) => void,
): ComputeWorker {
  const moved = movedFrom("../../kernels.wasm", kernelFiles["kernels.wasm"] as URL);
  // Bundlers know the second form, and only that.
  const worker =
    moved !== undefined
      ? new Worker(new URL("./worker.js", moved), { type: "module" })
      : new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => onMessage(data as Message);
  worker.onerror = ({ message }) => onError(new Error(message || "its script cannot be loaded"));
  worker.onmessageerror = () => onError(new Error("a message of it cannot be read"));
  worker.postMessage(start);
  return { keepAlive: () => {}, terminate: async () => worker.terminate() };
}
