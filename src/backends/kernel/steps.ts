// Instructions that follow each other as steps, each of which goes on with the value of the one before, in registers
// (kernels/elementwise_steps.def). A value is stored only where something reads it that does not go on with it.

import type { Instruction } from "../../graph/chains.js";
import type { KernelNumbers } from "./kernel-machine.js";

/** A function of the value of the step before and of an operand. */
interface Step {
  readonly name: string;
  readonly operand: number;
  /** Where the result goes. */
  stored?: number;
}

/** Functions whose operands may be exchanged, and others with the function of exchanged operands. */
const exchanged: Readonly<Record<string, string>> = { add: "add", multiply: "multiply", subtract: "subtractFrom" };

const notStored = 255;

/** Whether a function can be a step. */
export function isStep(name: string, { functions }: KernelNumbers): boolean {
  return functions.has(`step ${name}`) || isUnary(name, functions);
}

/** Instructions of a program, from `begin` to before `end`, that are to be steps. */
export interface StepRange {
  /** All of the program. */
  readonly instructions: readonly Instruction[];
  readonly begin: number;
  readonly end: number;
  /** The number of the first slot: what has a smaller one is needed after the program. */
  readonly firstSlot: number;
}

/** The instructions of a range, all of which can be steps, as words of a program. */
export function stepsOf(range: StepRange, { functions }: KernelNumbers): number[][] {
  const { instructions, begin, end } = range;
  const steps: Step[] = [];
  for (let i = begin; i < end; i++) {
    const instruction = instructions[i] as Instruction;
    const { function: name, a, b, result } = instruction;
    const before = i > begin ? (instructions[i - 1] as Instruction).result : undefined;
    const goesOn = before !== undefined && canGoOnWith(before, instruction, functions);
    if (!goesOn) steps.push({ name: "load", operand: a });
    if (isUnary(name, functions)) steps.push({ name, operand: 0 });
    else if (goesOn && before !== a) steps.push({ name: exchanged[name] as string, operand: a });
    else steps.push({ name, operand: b });
    if (isStored(range, i, functions)) (steps.at(-1) as Step).stored = result;
  }
  return inPairs(steps, functions);
}

type Functions = KernelNumbers["functions"];

function isUnary(name: string, functions: Functions): boolean {
  return functions.has(`unary step ${name}`);
}

/** Whether a step can take a value from the step before, and needs no other copy of it. */
function canGoOnWith(value: number, { function: name, a, b }: Instruction, functions: Functions): boolean {
  if (isUnary(name, functions)) return a === value;
  return a === value ? b !== value : b === value && name in exchanged;
}

/** Whether an instruction's result is read where no step goes on with it, by another instruction or as an output. */
function isStored({ instructions, end, firstSlot }: StepRange, at: number, functions: Functions): boolean {
  const { result } = instructions[at] as Instruction;
  for (let i = at + 1; i < instructions.length; i++) {
    const reader = instructions[i] as Instruction;
    const isRead = reader.a === result || reader.b === result;
    if (isRead && !(i === at + 1 && i < end && canGoOnWith(result, reader, functions))) return true;
    if (reader.result === result) return false;
  }
  return result < firstSlot;
}

/** Two steps in one where kernels have that. */
function inPairs(steps: readonly Step[], functions: Functions): number[][] {
  const words: number[][] = [];
  for (let i = 0; i < steps.length; i++) {
    const first = steps[i] as Step;
    const second = steps[i + 1];
    const pair = second && first.stored === undefined ? functions.get(`step ${first.name} ${second.name}`) : undefined;
    if (pair !== undefined) {
      words.push([pair, first.operand, (second as Step).operand, (second as Step).stored ?? notStored]);
      i++;
    } else {
      const number = functions.get(`step ${first.name}`) ?? functions.get(`unary step ${first.name}`);
      words.push([number as number, first.operand, 0, first.stored ?? notStored]);
    }
  }
  return words;
}
