// Compiles the kernels' WebAssembly: for threads over shared memory or for one thread, with or without relaxed SIMD.

import { readKernels } from "#platform/compute-workers";
import { BackendError } from "../../errors.js";

/** A module of one function with one instruction of relaxed SIMD, f32x4.relaxed_madd. */
const relaxedSimdProbe = Uint8Array.from([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 61, 1, 59, 0, 253, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0,
  0, 0, 0, 0, 0, 0, 0, 253, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 253, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
  0, 0, 0, 0, 0, 0, 253, 133, 2, 11,
]);

/** Whether this engine has the instructions of relaxed SIMD (https://github.com/WebAssembly/relaxed-simd). */
export function hasRelaxedSimd(): boolean {
  return WebAssembly.validate(relaxedSimdProbe);
}

/**
 * What kernels are for: those of training and of the lab are files of their own, so that a page that generates need not download
 * them.
 */
export type KernelSet = "generation" | "training";

/** Reads a file of kernels in the package's dist folder, and says where it is. */
export type ReadKernels = typeof readKernels;

const compiling = new Map<string, Promise<WebAssembly.Module>>();

/**
 * The compiled kernels, which are compiled only once.
 *
 * @param shared whether their memory is shared between threads
 * @param set "training" has all kernels
 * @param read where the files are found; bundlers know only those that are named where they are read
 * @throws BackendError when they cannot be read or compiled here
 */
export async function compiledKernels(
  shared: boolean,
  set: KernelSet,
  read: ReadKernels = readKernels,
): Promise<WebAssembly.Module> {
  const kind = set === "training" ? "training" : "kernels";
  const name = `${kind}${shared ? "" : "-single"}${set === "generation" && hasRelaxedSimd() ? "-relaxed" : ""}.wasm`;
  let loading = compiling.get(name);
  if (!loading) {
    loading = compile(name, read);
    loading.catch(() => compiling.delete(name));
    compiling.set(name, loading);
  }
  return loading;
}

async function compile(name: string, read: ReadKernels): Promise<WebAssembly.Module> {
  const { bytes, location } = await read(name).catch((cause) => {
    throw new BackendError(`wasm backend: ${name} cannot be read (${(cause as Error).message})`, { cause });
  });
  return WebAssembly.compile(bytes).catch((cause) => {
    // Servers of single-page applications answer any name with their page.
    const found = bytes[0] === 0x3c ? "a web page was found there" : (cause as Error).message;
    throw new BackendError(`wasm backend: ${location} cannot be compiled (${found})`, { cause });
  });
}
