// The names of kernels and functions in a WebAssembly build, read from its memory.

import { type KernelNumbers, numbersOf } from "../kernel/kernel-machine.js";
import type { KernelExports } from "./worker-protocol.js";

/** @param memory the memory of an instance that has been started */
export function readNames(memory: WebAssembly.Memory, exports: KernelExports): KernelNumbers {
  const bytes = new Uint8Array(memory.buffer);
  const listAt = (address: number) =>
    numbersOf(String.fromCharCode(...bytes.slice(address, bytes.indexOf(0, address))));
  return { kernels: listAt(exports.kernel_names()), functions: listAt(exports.function_names()) };
}
