// The stack of a compute thread. WebAssembly's own call stack is guarded by the engine, but arrays and other variables with an
// address are in a stack that the compiled C keeps in linear memory. It grows downwards, with nothing to stop it. Below it is a
// guard, filled with a pattern that is checked after each pass.

import type { Block } from "../kernel/kernel-machine.js";

/**
 * What kernels may use. Their largest frame of fixed size takes 136 KiB (multiply_part), and the recurrent units take 16 bytes
 * for each channel of their width, which is below 19,000 where their matrices fit into 4 GiB.
 */
export const kernelStackSize: number = 512 * 1024;
/** At least the largest frame that tools/build-wasm.mjs lets pass, so that no frame reaches beyond the guard untouched. */
const guardSize = 160 * 1024;
const pattern = 0x5ac3_3ca5;
/** Words between those that are looked at. */
const stride = 32;

/** The memory of a stack. */
export interface KernelStack {
  /** Where it begins. */
  readonly top: number;
  /** Address of the guard. */
  readonly guard: number;
}

/** Places a stack and its guard in memory. */
export function placeKernelStack(allocate: (size: number) => Block, size: number): KernelStack {
  const block = allocate(guardSize + size);
  const { buffer, byteOffset } = block.bytes;
  new Int32Array(buffer, byteOffset, guardSize / 4).fill(pattern);
  return { top: block.address + guardSize + size, guard: block.address };
}

/** @throws RangeError when a kernel has used more than its stack, so the memory below it may be damaged */
export function checkKernelStack(memory: WebAssembly.Memory, stack: KernelStack): void {
  const words = new Int32Array(memory.buffer, stack.guard, guardSize / 4);
  for (let i = 0; i < words.length; i += stride) {
    if (words[i] !== pattern) {
      throw new RangeError(`a kernel needs more than its stack of ${stack.top - stack.guard - guardSize} bytes`);
    }
  }
}
