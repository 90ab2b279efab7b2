// Fuses the nodes of a graph into the operations that kernels execute: what follows a matrix product element by element -
// an activation, a factor, a summand - is done where the product is stored, and all values of one group, such as the mixes
// of a token shift, are one operation's.

import { quantizedRowWidth } from "../quantization/blocks.js";
import { alwaysWritten } from "./gradient-nodes.js";
import { inputsOf, type RowNode, type RowSet, topologicalOrder, type WeightNode } from "./graph.js";

/** Functions that a matrix product can end with. */
export type Activation = "none" | "sigmoid" | "reluSquared";

/** Rows in blocks of 8 bits, as products with quantized weights take them. Made here, not by models. */
export interface QuantizedRows {
  readonly op: "quantizeRows";
  readonly x: RowNode;
  readonly rows: RowSet;
  /** Floats that a row's integers, scales and sums take. */
  readonly width: number;
}

/** A value in a plan. */
export type PlanNode = RowNode | QuantizedRows;

/** One operation of a plan: `main` says which and with what weights. */
export interface FusedOperation {
  readonly main: PlanNode;
  /** All values it reads, what `main` is computed from first. */
  readonly inputs: readonly PlanNode[];
  /** The values it makes: one, or those of a group that are wanted. */
  readonly outputs: readonly PlanNode[];
  readonly activation: Activation;
  readonly multiplier?: RowNode;
  readonly addend?: RowNode;
}

/**
 * The operations that give the roots, each after those it needs.
 *
 * @param quantized the weights that are in blocks
 */
export function fuse(roots: readonly RowNode[], quantized: ReadonlySet<WeightNode> = new Set()): FusedOperation[] {
  const order = topologicalOrder(...roots);
  const kept = new Set(roots);
  const consumers = consumersOf(order);
  const depth = depthsOf(order);
  const absorbed = new Set<RowNode>();
  const operations: FusedOperation[] = [];
  const groups = new Map<symbol, RowNode[]>();
  for (const node of order) {
    if (!("group" in node)) continue;
    const group = groups.get(node.group) ?? [];
    group.push(node);
    groups.set(node.group, group);
  }
  for (const node of order) {
    if (absorbed.has(node)) continue;
    if (node.op === "vectorRow") continue; // lies where its vector does
    if ("group" in node) {
      const outputs = groups.get(node.group) as RowNode[];
      for (const output of outputs) absorbed.add(output);
      if (node.op === "tokenShift") outputs.sort((a, b) => outputIndex(a) - outputIndex(b));
      for (const written of alwaysWritten(node)) {
        if (outputs.some((other) => "output" in other && other.output === written.output)) continue;
        outputs.push({ ...node, ...written, rows: "tokens" } as RowNode);
      }
      operations.push({ main: node, inputs: valuesIn(inputsOf(node)), outputs, activation: "none" });
    } else {
      const operation = withEpilogue(node, kept, consumers, depth);
      for (const taken of operation.absorbed) absorbed.add(taken);
      operations.push(operation.fused);
    }
  }
  return sortByNeed(withQuantizedRows(operations, quantized));
}

/** Puts the quantization of rows before the products that need it; once for all products of the same rows. */
function withQuantizedRows(
  operations: readonly FusedOperation[],
  quantized: ReadonlySet<WeightNode>,
): FusedOperation[] {
  const made = new Map<RowNode, QuantizedRows>();
  const result: FusedOperation[] = [];
  for (const operation of operations) {
    const { main } = operation;
    if (main.op !== "matmul" || !quantized.has(main.weight)) {
      result.push(operation);
      continue;
    }
    let rows = made.get(main.x);
    if (!rows) {
      rows = { op: "quantizeRows", x: main.x, rows: main.rows, width: quantizedRowWidth(main.x.width) };
      made.set(main.x, rows);
      result.push({ main: rows, inputs: [main.x], outputs: [rows], activation: "none" });
    }
    result.push({ ...operation, inputs: [rows, ...operation.inputs.slice(1)] });
  }
  return result;
}

/** Those that an operation makes; the others are vectors. */
function valuesIn(nodes: readonly RowNode[]): RowNode[] {
  return nodes.filter((node) => node.op !== "vectorRow");
}

function outputIndex(node: RowNode): number {
  return node.op === "tokenShift" ? node.output : 0;
}

/** Follows a product's only consumers as long as they can be done where it is stored. */
function withEpilogue(
  main: RowNode,
  kept: ReadonlySet<RowNode>,
  consumers: ReadonlyMap<RowNode, readonly RowNode[]>,
  depth: ReadonlyMap<RowNode, number>,
): { fused: FusedOperation; absorbed: RowNode[] } {
  const absorbed: RowNode[] = [];
  let activation: Activation = "none";
  let multiplier: RowNode | undefined;
  let addend: RowNode | undefined;
  let result = main;
  const take = (node: RowNode) => {
    absorbed.push(node);
    result = node;
  };
  const onlyConsumer = (node: RowNode) => {
    const all = consumers.get(node) ?? [];
    return !kept.has(node) && all.length === 1 ? all[0] : undefined;
  };
  while (main.op === "matmul" || main.op === "wkv") {
    const next = onlyConsumer(result);
    if (next?.op === "unary" && main.op === "matmul" && activation === "none" && !multiplier && !addend) {
      if (next.function !== "sigmoid" && next.function !== "reluSquared") break;
      activation = next.function;
      take(next);
    } else if (next?.op === "binary" && next.a !== next.b && !addend) {
      const other = next.a === result ? next.b : next.a;
      // The later of two factors takes the other, so that the earlier need not wait.
      if ((depth.get(other) as number) >= (depth.get(result) as number)) break;
      if (next.function === "multiply" && !multiplier) multiplier = other;
      else if (next.function === "add" && main.op === "matmul") addend = other;
      else break;
      take(next);
    } else break;
  }
  const inputs = [...valuesIn(inputsOf(main)), ...(multiplier ? [multiplier] : []), ...(addend ? [addend] : [])];
  const fused = {
    main,
    inputs,
    outputs: [result],
    activation,
    ...(multiplier && { multiplier }),
    ...(addend && { addend }),
  };
  return { fused, absorbed };
}

function consumersOf(order: readonly RowNode[]): Map<RowNode, RowNode[]> {
  const consumers = new Map<RowNode, RowNode[]>();
  for (const node of order) {
    for (const input of inputsOf(node)) {
      const list = consumers.get(input) ?? [];
      list.push(node);
      consumers.set(input, list);
    }
  }
  return consumers;
}

/** How many operations that cannot be fused lie on the longest way to each node. */
function depthsOf(order: readonly RowNode[]): Map<RowNode, number> {
  const depths = new Map<RowNode, number>();
  for (const node of order) {
    const deepest = inputsOf(node).reduce((most, input) => Math.max(most, depths.get(input) as number), 0);
    depths.set(node, deepest + (node.op === "unary" || node.op === "binary" ? 0 : 1));
  }
  return depths;
}

/** A fused operation may need values that its first node did not; puts every operation after what it needs. */
function sortByNeed(operations: readonly FusedOperation[]): FusedOperation[] {
  const maker = new Map<PlanNode, FusedOperation>();
  for (const operation of operations) for (const output of operation.outputs) maker.set(output, operation);
  const sorted = new Set<FusedOperation>();
  for (const first of operations) {
    const stack = [first];
    while (stack.length > 0) {
      const operation = stack[stack.length - 1] as FusedOperation;
      const missing = operation.inputs.map((input) => maker.get(input)).filter((m) => m && !sorted.has(m));
      if (missing.length === 0) sorted.add(stack.pop() as FusedOperation);
      else stack.push(...(missing as FusedOperation[]));
    }
  }
  return [...sorted];
}
