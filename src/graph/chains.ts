// Chains of elementwise functions: which of them are computed together, in one pass over memory, and the short program that a kernel
// runs over each tile. A chain's functions have the same shape, and nothing but functions lies between them.

import { inputsOf, type RowNode } from "./graph.js";
import { constantIn } from "./operations/leaves.js";

/** How a kernel reads an operand. */
export interface ChainInput {
  readonly node: RowNode;
  /** Whether its one row stands for all rows. */
  readonly oneRow: boolean;
  /** Consecutive channels that each of its elements stands for. */
  readonly repeat: number;
}

/** One function; values are numbered: inputs, then constants, then outputs, then slots for what lies between. */
export interface Instruction {
  readonly function: string;
  readonly a: number;
  /** 0 where the function takes one operand. */
  readonly b: number;
  readonly result: number;
}

/** A compiled chain. */
export interface Chain {
  readonly inputs: readonly ChainInput[];
  readonly constants: readonly number[];
  readonly outputs: readonly RowNode[];
  readonly slotCount: number;
  readonly instructions: readonly Instruction[];
  /** Which inputs each output may take the place of: those that no later instruction reads. */
  readonly replaceable: readonly (readonly RowNode[])[];
}

/** What the kernel has room for (kernels/elementwise.c). */
const limits = { inputs: 16, constants: 16, outputs: 8, slots: 12, instructions: 32 } as const;

/**
 * The chains that functions make up; each list is of nodes in their order.
 *
 * @param functions all nodes that are to be computed in chains, each after its inputs
 * @param depth how many operations lie before each node: functions of one depth and shape have nothing between them
 */
export function chainsOf(
  functions: readonly RowNode[],
  depth: ReadonlyMap<RowNode, number>,
  isNeeded: (node: RowNode, by: ReadonlySet<RowNode>) => boolean,
): Chain[] {
  const chains: Chain[] = [];
  for (const cluster of clustersOf(functions, depth)) {
    let rest = cluster;
    while (rest.length > 0) {
      let length = rest.length;
      let chain = compile(rest, isNeeded);
      while (!fits(chain) && length > 1) chain = compile(rest.slice(0, --length), isNeeded);
      chains.push(chain);
      rest = rest.slice(length);
    }
  }
  return chains;
}

/** Functions that give each other their operands, at the same depth and of the same shape. */
function clustersOf(functions: readonly RowNode[], depth: ReadonlyMap<RowNode, number>): RowNode[][] {
  const clusterOf = new Map<RowNode, RowNode[]>();
  for (const node of functions) {
    let cluster = [node];
    for (const input of inputsOf(node.call)) {
      const other = clusterOf.get(input);
      if (!other || other === cluster || !isSameShape(input, node) || depth.get(input) !== depth.get(node)) continue;
      // The shorter list goes into the longer.
      const [long, short] = other.length >= cluster.length ? [other, cluster] : [cluster, other];
      long.push(...short);
      for (const member of short) clusterOf.set(member, long);
      cluster = long;
    }
    for (const member of cluster) clusterOf.set(member, cluster);
  }
  const place = new Map(functions.map((node, i) => [node, i]));
  const inOrder = (a: RowNode, b: RowNode) => (place.get(a) as number) - (place.get(b) as number);
  return [...new Set(clusterOf.values())].map((cluster) => cluster.sort(inOrder));
}

export function isSameShape(a: RowNode, b: RowNode): boolean {
  return a.rows === b.rows && a.width === b.width;
}

function compile(nodes: readonly RowNode[], isNeeded: (node: RowNode, by: ReadonlySet<RowNode>) => boolean): Chain {
  const members = new Set(nodes);
  const shape = nodes[0] as RowNode;
  const operands = [...new Set(nodes.flatMap((node) => inputsOf(node.call)))].filter((node) => !members.has(node));
  const values = operands.filter((node) => constantIn(node) === undefined);
  const constants = [...new Set(operands.map(constantIn).filter((value) => value !== undefined))];
  const outputs = nodes.filter((node) => isNeeded(node, members));
  const firstConstant = values.length;
  const firstOutput = firstConstant + constants.length;
  const firstSlot = firstOutput + outputs.length;

  const lastUse = new Map<RowNode, number>();
  nodes.forEach((node, i) => {
    for (const input of inputsOf(node.call)) lastUse.set(input, i);
  });
  const free: number[] = [];
  let slotCount = 0;
  const number = new Map<RowNode, number>(outputs.map((node, i) => [node, firstOutput + i]));
  const numberOf = (node: RowNode): number => {
    const constant = constantIn(node);
    if (constant !== undefined) return firstConstant + constants.indexOf(constant);
    return number.get(node) ?? values.indexOf(node);
  };
  const instructions = nodes.map((node, i): Instruction => {
    const inputs = inputsOf(node.call);
    const [a, b] = inputs.map(numberOf);
    // A function may write where it reads: each element is read before it is written.
    for (const input of new Set(inputs)) {
      const place = number.get(input);
      if (place !== undefined && place >= firstSlot && lastUse.get(input) === i) free.push(place);
    }
    if (!number.has(node)) number.set(node, free.pop() ?? firstSlot + slotCount++);
    return {
      function: node.call.operation.elementwise as string,
      a: a as number,
      b: b ?? 0,
      result: number.get(node) as number,
    };
  });
  return {
    inputs: values.map((node) => ({
      node,
      oneRow: node.rows === 1 && shape.rows !== 1,
      repeat: shape.width / node.width,
    })),
    constants,
    outputs,
    slotCount,
    instructions,
    replaceable: outputs.map((output) => {
      const written = nodes.indexOf(output);
      return values.filter((node) => isSameShape(node, output) && (lastUse.get(node) as number) <= written);
    }),
  };
}

function fits({ inputs, constants, outputs, slotCount, instructions }: Chain): boolean {
  return (
    inputs.length <= limits.inputs &&
    constants.length <= limits.constants &&
    outputs.length <= limits.outputs &&
    slotCount <= limits.slots &&
    instructions.length <= limits.instructions
  );
}
