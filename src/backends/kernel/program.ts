// The program of a chain of elementwise functions as a kernel reads it: how each operand is read, constants, instructions. The
// layout is that of kernels/elementwise.c.

import { BackendError } from "../../errors.js";
import type { Instruction } from "../../graph/chains.js";
import type { KernelNumbers } from "./kernel-machine.js";

export interface Program {
  readonly inputs: readonly { readonly oneRow: boolean; readonly repeat: number }[];
  readonly constants: readonly number[];
  readonly outputCount: number;
  readonly slotCount: number;
  readonly instructions: readonly Instruction[];
}

const headerWords = 5;

/** @throws BackendError for a function that the kernels do not have */
export function encodeProgram(program: Program, { functions }: KernelNumbers): Uint8Array {
  const { inputs, constants, outputCount, slotCount, instructions } = program;
  const words = headerWords + 2 * inputs.length + constants.length + instructions.length;
  const bytes = new Uint8Array(4 * words);
  const view = new DataView(bytes.buffer);
  let at = 0;
  const word = (value: number) => {
    view.setUint32(at, value, true);
    at += 4;
  };
  for (const count of [inputs.length, outputCount, constants.length, slotCount, instructions.length]) word(count);
  for (const { oneRow, repeat } of inputs) {
    word(oneRow ? 1 : 0);
    word(repeat);
  }
  for (const value of constants) {
    view.setFloat32(at, value, true);
    at += 4;
  }
  for (const { function: name, a, b, result } of instructions) {
    const number = functions.get(name);
    if (number === undefined) throw new BackendError(`these kernels have no function "${name}"`);
    bytes.set([number, a, b, result], at);
    at += 4;
  }
  return bytes;
}
