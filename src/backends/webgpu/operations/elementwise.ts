// Chains of functions of elements: for each chain a shader, an invocation an element.

import type { Chain, ChainInput } from "../../../graph/chains.js";
import type { RowNode } from "../../../graph/graph.js";
import type { BinaryName, UnaryName } from "../../../graph/operations/elementwise.js";
import { vectorIn } from "../../../graph/operations/leaves.js";
import type { Operands } from "../operands.js";
import { type Invocation, makeShader, oneVariant } from "../shader.js";
import { binaryCode, expFunction, floatLiteral, unaryCode } from "../wgsl.js";

const workgroup = 64;

/** The invocation that computes a chain. */
export function elementwise(chain: Chain, operands: Operands): Invocation {
  const { inputs, outputs, instructions, constants } = chain;
  const [{ rows, width }] = outputs as readonly [RowNode];
  const fields: Record<string, number> = { width };
  const body: string[] = [
    `  let c = tile * ${workgroup}u + lane;`,
    "  if (c >= p.width) { return; }",
    "  let at = row * p.width + c;",
  ];
  inputs.forEach((input, i) => {
    const vector = vectorIn(input.node);
    fields[`input${i}`] = vector ? operands.vector(vector) : operands.value(input.node);
    body.push(`  let v${i} = ${vector ? "vectors" : "arena"}[p.input${i} + ${indexOf(input)}];`);
  });
  constants.forEach((value, i) => void body.push(`  let v${inputs.length + i} = ${floatLiteral(value)};`));
  const firstOutput = inputs.length + constants.length;
  const results = new Set(instructions.map(({ result }) => result));
  for (const result of results) body.push(`  var v${result} = 0.0;`);
  for (const { function: name, a, b, result } of instructions) {
    const unary = unaryCode[name as UnaryName];
    const code = unary ? unary(`v${a}`) : binaryCode[name as BinaryName](`v${a}`, `v${b}`);
    body.push(`  v${result} = ${code};`);
  }
  outputs.forEach((node, i) => {
    fields[`output${i}`] = operands.value(node);
    body.push(`  arena[p.output${i} + at] = v${firstOutput + i};`);
  });
  const names = instructions.map(({ function: name }) => name);
  const label = `elementwise: ${names.slice(0, 6).join(" ")}${names.length > 6 ? " ..." : ""}`;
  const shader = makeShader({
    label,
    fields: Object.keys(fields),
    workgroup,
    declarations: expFunction,
    body: body.join("\n"),
  });
  return {
    over: rows,
    weights: undefined,
    fields,
    variants: oneVariant(shader, Math.ceil(width / workgroup)),
  };
}

/** WGSL for the place of an operand's element: of its one row, or of each; of its one channel for several. */
function indexOf({ node, oneRow, repeat }: ChainInput): string {
  const channel = repeat === 1 ? "c" : `c / ${repeat}u`;
  if (oneRow || node.rows === 1) return channel;
  return repeat === 1 ? "at" : `row * ${node.width}u + ${channel}`;
}
