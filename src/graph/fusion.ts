// Fuses the calls of a graph into the operations that kernels execute: what follows a product element by element - an
// activation, a factor, a summand - is done where the product is stored, other functions are chained (chains.ts), and all values
// of one call, such as the mixes of a token shift, are one operation's.

import { type Chain, chainsOf, isSameShape } from "./chains.js";
import {
  type Call,
  inputsOf,
  matricesOf,
  type RowNode,
  type Sharing,
  topologicalOrder,
  type WeightNode,
} from "./graph.js";
import { multiply } from "./operations/elementwise.js";
import { constant } from "./operations/leaves.js";
import { matmul, quantizeRows, sparseMatmul } from "./operations/matmul.js";

/** One operation of a plan. */
export type FusedOperation = FusedCall | FusedChain;

interface Fused {
  /** The name of its kernel. */
  readonly kernel: string;
  /**
   * All values that it reads from the arena; those of a call are its own inputs in their order, then those of what comes after
   * it.
   */
  readonly inputs: readonly RowNode[];
  /** The values it makes. */
  readonly outputs: readonly RowNode[];
  readonly sharedBy: Sharing | undefined;
  /** Channels that threads share, where they do. */
  readonly channels: number;
  /** Which inputs each of some outputs may take the place of. */
  readonly inPlace: readonly { readonly output: RowNode; readonly inputs: readonly RowNode[] }[];
}

/** A call, and what is done where its result is stored. */
export interface FusedCall extends Fused {
  readonly call: Call;
  readonly chain?: undefined;
  readonly activation: string | undefined;
  readonly multiplier: RowNode | undefined;
  readonly addend: RowNode | undefined;
}

/** A chain of elementwise functions. */
export interface FusedChain extends Fused {
  readonly call?: undefined;
  readonly chain: Chain;
}

/** Channels that threads share are multiples of this (channel_grain in kernels/plan.h). */
const channelGrain = 64;

/** Chains share channels with their neighbours where there are enough of them for all threads. */
const sharedChainWidth = 256;

/** How weights lie in memory, where that makes operations others. */
export interface WeightLayouts {
  /** The weights that are in blocks. */
  readonly quantized?: ReadonlySet<WeightNode>;
  /** For weights that have a second form, input by input, what stands for that. */
  readonly byInput?: ReadonlyMap<WeightNode, WeightNode>;
}

/** The operations that give the roots, each after those it needs. */
export function fuse(
  roots: readonly RowNode[],
  { quantized = new Set(), byInput = new Map() }: WeightLayouts = {},
): FusedOperation[] {
  const order = topologicalOrder(...roots);
  const kept = new Set(roots);
  const wanted = new Set(order);
  const consumers = consumersOf(order);
  const depth = depthsOf(order);
  const made = new Set<RowNode>();
  const operations: FusedOperation[] = [];
  const functions: RowNode[] = [];
  for (const node of order) {
    const { operation } = node.call;
    if (made.has(node) || operation.isLeaf || operation.isGiven) continue;
    if (operation.elementwise !== undefined) {
      functions.push(node);
      continue;
    }
    const fused = operation.epilogue ? withEpilogue(node, kept, consumers, depth, made) : fuseCall(node.call, wanted);
    for (const output of fused.outputs) made.add(output);
    operations.push(fused);
  }
  const isNeeded = (node: RowNode, by: ReadonlySet<RowNode>) =>
    kept.has(node) || (consumers.get(node) ?? []).some((consumer) => !by.has(consumer));
  const rest = functions.filter((node) => !made.has(node));
  const chains = chainsOf(rest, depth, isNeeded).map(fuseChain);
  const place = new Map(order.map((node, i) => [node, i]));
  const placeOf = ({ outputs }: FusedOperation) => Math.max(...outputs.map((node) => place.get(node) ?? -1));
  operations.push(...chains);
  const places = new Map(operations.map((operation) => [operation, placeOf(operation)]));
  operations.sort((a, b) => (places.get(a) as number) - (places.get(b) as number));
  return sortByNeed(withQuantizedRows(withSparseProducts(withCopiedLeaves(operations), byInput), quantized));
}

function fuseCall(call: Call, wanted: ReadonlySet<RowNode>): FusedCall {
  const { operation } = call;
  const named = (name: string) => call.outputs[operation.outputs.indexOf(name)] as RowNode;
  const always = new Set(operation.alwaysWritten.map(named));
  const outputs = call.outputs.filter((node) => wanted.has(node) || always.has(node));
  const inputs = inputsOf(call);
  const { inPlace } = operation;
  const output = inPlace && named(inPlace.output);
  return {
    kernel: operation.name,
    call,
    inputs,
    outputs,
    sharedBy: sharingOf(call),
    channels: inputs[0]?.width ?? 0,
    inPlace:
      inPlace && output && outputs.includes(output)
        ? [{ output, inputs: inPlace.inputs.map((name) => call.operands[name] as RowNode) }]
        : [],
    activation: undefined,
    multiplier: undefined,
    addend: undefined,
  };
}

/**
 * Heads are shared as channels are where the channels that a thread has at least are whole heads (heads_of in kernels/plan.h), as
 * with heads of 64; else they have nothing in common with what neighbours share.
 */
function sharingOf(call: Call): Sharing | undefined {
  const { sharedBy } = call.operation;
  if (sharedBy !== "heads") return sharedBy;
  const size = (inputsOf(call)[0] as RowNode).width / (call.operands["heads"] as number);
  return channelGrain % size === 0 ? "channels" : undefined;
}

function fuseChain(chain: Chain): FusedChain {
  const { inputs, outputs, replaceable } = chain;
  const { rows, width } = outputs[0] as RowNode;
  return {
    kernel: "elementwise",
    chain,
    inputs: inputs.map(({ node }) => node).filter((node) => !node.call.operation.isLeaf),
    outputs,
    sharedBy: typeof rows !== "number" && width >= sharedChainWidth ? "channels" : undefined,
    channels: width,
    inPlace: outputs.map((output, i) => ({ output, inputs: replaceable[i] as readonly RowNode[] })),
  };
}

/**
 * Copies leaves before operations that need them as rows in the arena: only chains read a vector where it is, and a constant from
 * their program.
 */
function withCopiedLeaves(operations: readonly FusedOperation[]): FusedOperation[] {
  const copies = new Map<RowNode, RowNode>();
  const result: FusedOperation[] = [];
  const copyOf = (leaf: RowNode): RowNode => {
    const copy = copies.get(leaf) ?? multiply(leaf, constant(1));
    if (!copies.has(leaf)) result.push(...chainsOf([copy], new Map(), () => true).map(fuseChain));
    copies.set(leaf, copy);
    return copy;
  };
  for (const operation of operations) {
    const { call, inputs } = operation;
    result.push(
      call
        ? { ...operation, inputs: inputs.map((node) => (node.call.operation.isLeaf ? copyOf(node) : node)) }
        : operation,
    );
  }
  return result;
}

/** Puts sparse products in the place of those with matrices that have a form input by input. */
function withSparseProducts(
  operations: readonly FusedOperation[],
  forms: ReadonlyMap<WeightNode, WeightNode>,
): FusedOperation[] {
  return operations.map((operation) => {
    const operands = operation.call && matmul.operandsOf(operation.call);
    const byInput = operands && forms.get(operands.weight);
    if (!byInput) return operation;
    return { ...operation, kernel: sparseMatmul.name, call: sparseMatmul.apply({ ...operands, byInput }).result.call };
  });
}

/** Puts the quantization of rows before the products that need it; once for all products of the same rows. */
function withQuantizedRows(
  operations: readonly FusedOperation[],
  quantized: ReadonlySet<WeightNode>,
): FusedOperation[] {
  const made = new Map<RowNode, RowNode>();
  const result: FusedOperation[] = [];
  for (const operation of operations) {
    const { call } = operation;
    if (call?.operation.matrices["weight"] !== "product" || !matricesOf(call).some((weight) => quantized.has(weight))) {
      result.push(operation);
      continue;
    }
    const [x, ...others] = operation.inputs as [RowNode, ...RowNode[]];
    let rows = made.get(x);
    if (!rows) {
      rows = quantizeRows.apply({ x }).result;
      made.set(x, rows);
      result.push(fuseCall(rows.call, new Set([rows])));
    }
    result.push({ ...operation, inputs: [rows, ...others] });
  }
  return result;
}

/** Follows a product's only consumers as long as they can be done where it is stored; adds what it takes to `made`. */
function withEpilogue(
  main: RowNode,
  kept: ReadonlySet<RowNode>,
  consumers: ReadonlyMap<RowNode, readonly RowNode[]>,
  depth: ReadonlyMap<RowNode, number>,
  made: Set<RowNode>,
): FusedCall {
  const epilogue = main.call.operation.epilogue as NonNullable<Call["operation"]["epilogue"]>;
  let activation: string | undefined;
  let multiplier: RowNode | undefined;
  let addend: RowNode | undefined;
  let result = main;
  for (;;) {
    const all = consumers.get(result) ?? [];
    const next = kept.has(result) || all.length !== 1 ? undefined : all[0];
    const name = next?.call.operation.elementwise;
    if (!next || name === undefined) break;
    const [a, b] = inputsOf(next.call) as [RowNode, RowNode?];
    if (!b) {
      if (activation || multiplier || addend || !epilogue.activations.includes(name)) break;
      activation = name;
    } else {
      const other = a === result ? b : a;
      if (a === b || addend || other.call.operation.isLeaf || !isSameShape(other, result)) break;
      // The later of two factors takes the other, so that the earlier need not wait.
      if ((depth.get(other) as number) >= (depth.get(result) as number)) break;
      if (name === "multiply" && epilogue.multiplier && !multiplier) multiplier = other;
      else if (name === "add" && epilogue.addend) addend = other;
      else break;
    }
    made.add(next);
    result = next;
  }
  const fused = fuseCall(main.call, new Set([main]));
  const after = [multiplier, addend].filter((node) => node !== undefined);
  return { ...fused, inputs: [...fused.inputs, ...after], outputs: [result], activation, multiplier, addend };
}

function consumersOf(order: readonly RowNode[]): Map<RowNode, RowNode[]> {
  const consumers = new Map<RowNode, RowNode[]>();
  for (const node of order) {
    for (const input of inputsOf(node.call)) {
      const list = consumers.get(input) ?? [];
      list.push(node);
      consumers.set(input, list);
    }
  }
  return consumers;
}

/**
 * The length of the longest path to each node, in operations. Functions count only where their shape changes, so those of one
 * depth and shape have no other operation between them.
 */
function depthsOf(order: readonly RowNode[]): Map<RowNode, number> {
  const depths = new Map<RowNode, number>();
  for (const node of order) {
    const own = node.call.operation.elementwise === undefined ? 1 : 0;
    const depth = inputsOf(node.call).reduce((most, input) => {
      const isOtherFunction = input.call.operation.elementwise !== undefined && !isSameShape(input, node);
      return Math.max(most, (depths.get(input) as number) + (own === 0 && isOtherFunction ? 1 : own));
    }, own);
    depths.set(node, depth);
  }
  return depths;
}

/** A fused operation may need values that its first node did not; puts every operation after what it needs. */
function sortByNeed(operations: readonly FusedOperation[]): FusedOperation[] {
  const maker = new Map<RowNode, FusedOperation>();
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
