// The kernels of training in a page, apart from the others: only what trains names these files, so bundles of what generates have none.

import { readKernelsFrom } from "./kernel-files.js";

const kernelFiles: Readonly<Record<string, URL>> = {
  "training.wasm": new URL("../../training.wasm", import.meta.url),
  "training-single.wasm": new URL("../../training-single.wasm", import.meta.url),
};

/** A file of the package's dist folder, and where it is. */
export function readTrainingKernels(name: string): Promise<{ bytes: Uint8Array<ArrayBuffer>; location: string }> {
  return readKernelsFrom(kernelFiles, name);
}
