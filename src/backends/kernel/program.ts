// The program of a chain of elementwise functions as a kernel reads it: how each operand is read, constants, instructions and steps.
// The layout is that of kernels/elementwise.c.

import { BackendError } from "../../errors.js";
import type { Instruction } from "../../graph/chains.js";
import type { KernelNumbers } from "./kernel-machine.js";
import { isStep, stepsOf } from "./steps.js";

export interface Program {
  readonly inputs: readonly { readonly oneRow: boolean; readonly repeat: number }[];
  readonly constants: readonly number[];
  readonly outputCount: number;
  readonly slotCount: number;
  readonly instructions: readonly Instruction[];
}

const headerWords = 5;

/** In place of an instruction's function: so many steps follow. */
const stepsFollow = 255;

/** @throws BackendError for a function that the kernels do not have */
export function encodeProgram(program: Program, numbers: KernelNumbers): Uint8Array {
  const { inputs, constants, outputCount, slotCount } = program;
  const instructions = encodeInstructions(program, numbers);
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
  for (const instruction of instructions) {
    bytes.set(instruction, at);
    at += 4;
  }
  return bytes;
}

/** As many instructions as are no slower in steps than one by one. */
const fewestInSteps = 3;

/** Instructions one by one, but where several that can be steps follow each other, their steps. */
function encodeInstructions(program: Program, numbers: KernelNumbers): number[][] {
  const { inputs, constants, outputCount, instructions } = program;
  const firstSlot = inputs.length + constants.length + outputCount;
  const encoded: number[][] = [];
  for (let i = 0; i < instructions.length; ) {
    let end = i;
    while (end < instructions.length && isStep((instructions[end] as Instruction).function, numbers)) end++;
    if (end - i >= fewestInSteps) {
      const steps = stepsOf({ instructions, begin: i, end, firstSlot }, numbers);
      encoded.push([stepsFollow, steps.length, 0, 0], ...steps);
      i = end;
      continue;
    }
    const { function: name, a, b, result } = instructions[i++] as Instruction;
    const number = numbers.functions.get(name);
    if (number === undefined) throw new BackendError(`these kernels have no function "${name}"`);
    encoded.push([number, a, b, result]);
  }
  return encoded;
}
