// Chains of functions of elements: a shader for all chains of a step that have one shape, an invocation an element.

import type { Chain, ChainInput } from "../../../graph/chains.js";
import type { RowNode } from "../../../graph/graph.js";
import type { BinaryName, UnaryName } from "../../../graph/operations/elementwise.js";
import { vectorIn } from "../../../graph/operations/leaves.js";
import type { Operands } from "../operands.js";
import { type Invocation, makeShader, oneVariant } from "../shader.js";
import { binaryCode, expFunction, floatLiteral, unaryCode } from "../wgsl.js";

const workgroup = 64;

/** The invocation that computes chains of one shape. */
export function elementwise(chains: readonly Chain[], operands: Operands): Invocation {
  const [{ rows, width }] = (chains[0] as Chain).outputs as readonly [RowNode];
  const fields: Record<string, number> = { width };
  const parameter = (value: number) => {
    const name = `f${Object.keys(fields).length}`;
    fields[name] = value;
    return `p.${name}`;
  };
  const shader = makeShader({
    label: `elementwise: ${chains.map(nameOf).join("; ")}`,
    workgroup,
    declarations: expFunction,
    body: `
  let c = tile * ${workgroup}u + lane;
  if (c >= p.width) { return; }
  let at = row * p.width + c;
${chains.map((chain) => `  {\n${linesOf(chain, operands, parameter).join("\n")}\n  }`).join("\n")}`,
    fields: Object.keys(fields),
  });
  return {
    over: rows,
    weights: undefined,
    fields,
    variants: oneVariant(shader, Math.ceil(width / workgroup)),
  };
}

/** The first of a chain's functions. */
function nameOf({ instructions }: Chain): string {
  const names = instructions.map(({ function: name }) => name);
  return `${names.slice(0, 6).join(" ")}${names.length > 6 ? " ..." : ""}`;
}

/** A chain's code for the element `at`, in channel `c`. @param parameter makes a parameter, and gives it as an expression */
function linesOf(chain: Chain, operands: Operands, parameter: (value: number) => string): string[] {
  const { inputs, outputs, instructions, constants } = chain;
  const lines: string[] = [];
  inputs.forEach((input, i) => {
    const vector = vectorIn(input.node);
    const place = parameter(vector ? operands.vector(vector) : operands.value(input.node));
    lines.push(`    let v${i} = ${vector ? "vectors" : "arena"}[${place} + ${indexOf(input)}];`);
  });
  constants.forEach((value, i) => void lines.push(`    let v${inputs.length + i} = ${floatLiteral(value)};`));
  const firstOutput = inputs.length + constants.length;
  const results = new Set(instructions.map(({ result }) => result));
  for (const result of results) lines.push(`    var v${result} = 0.0;`);
  for (const { function: name, a, b, result } of instructions) {
    const unary = unaryCode[name as UnaryName];
    const code = unary ? unary(`v${a}`) : binaryCode[name as BinaryName](`v${a}`, `v${b}`);
    lines.push(`    v${result} = ${code};`);
  }
  outputs.forEach((node, i) => {
    lines.push(`    arena[${parameter(operands.value(node))} + at] = v${firstOutput + i};`);
  });
  return lines;
}

/** WGSL for the place of an operand's element: of its one row, or of each; of its one channel for several. */
function indexOf({ node, oneRow, repeat }: ChainInput): string {
  const channel = repeat === 1 ? "c" : `c / ${repeat}u`;
  if (oneRow || node.rows === 1) return channel;
  return repeat === 1 ? "at" : `row * ${node.width}u + ${channel}`;
}
