// Compiles a graph to a plan: fused operations in steps, and a place for every intermediate value. Operations of one step
// do not depend on each other, so threads need to meet only between steps, and not even there where each thread goes on with the
// channels that are its own; values whose lives do not overlap share memory.

import { type Activation, type FusedOperation, fuse, type PlanNode } from "./fusion.js";
import type { RowNode, RowSet, WeightNode } from "./graph.js";

/** A value's place in the arena. */
export interface PlannedBuffer {
  readonly rows: RowSet;
  /** Floats in a row. */
  readonly width: number;
  /** Position in the arena, in bytes; a multiple of 64. */
  readonly offset: number;
}

/**
 * Whether threads meet after a step: "fewRowsApart" where they need not as long as there are fewer rows than threads, since
 * a norm is then shared by channels.
 */
export type Barrier = "always" | "never" | "fewRowsApart";

/** A compiled graph. */
export interface Plan {
  /** Operations in steps; all of a step must be done before the next begins, as far as threads see each other's work. */
  readonly steps: readonly (readonly FusedOperation[])[];
  /** What ends each step. */
  readonly barriers: readonly Barrier[];
  readonly buffers: ReadonlyMap<PlanNode, PlannedBuffer>;
  /** Bytes of the arena that holds all buffers. */
  readonly arenaSize: number;
  /** Most rows that a pass may have, of tokens and of selected tokens. */
  readonly capacity: number;
}

export type { Activation, FusedOperation, PlanNode };

const alignment = 64;

export interface PlanOptions {
  /** The weights that are in blocks. */
  readonly quantized?: ReadonlySet<WeightNode>;
  /**
   * "earliest" does everything as soon as it can be done, so that threads meet seldom; "inOrder" keeps the order in which the roots
   * need it, so that few values live at a time.
   */
  readonly schedule?: "earliest" | "inOrder";
}

/**
 * @param roots the values wanted; each stays until the end of a pass
 * @param capacity most tokens of one pass
 */
export function planGraph(roots: readonly RowNode[], capacity: number, options: PlanOptions = {}): Plan {
  const operations = fuse(roots, options.quantized);
  const steps = schedule(operations, options.schedule ?? "earliest");
  const barriers = steps.map((step, i) => barrierBetween(step, steps[i + 1]));
  const { buffers, arenaSize } = placeBuffers(steps, barriers, roots, capacity);
  return { steps, barriers, buffers, arenaSize, capacity };
}

/**
 * Kernels that work channel by channel share the channels alike, so a thread that goes from one to the next finds its own
 * channels done. A norm needs whole rows before it.
 */
function barrierBetween(step: readonly FusedOperation[], next: readonly FusedOperation[] | undefined): Barrier {
  const widths = new Set([...step, ...(next ?? [])].map(({ main }) => channelsOf(main)));
  if (!next || widths.has(undefined) || widths.size > 1 || next.some(({ main }) => main.op === "layerNorm"))
    return "always";
  return step.some(({ main }) => main.op === "layerNorm") ? "fewRowsApart" : "never";
}

/** The channels that threads share in an operation; undefined where they share something else. */
function channelsOf(node: PlanNode): number | undefined {
  if (node.op === "quantizeRows") return node.x.width;
  return node.op === "layerNorm" || node.op === "tokenShift" || node.op === "wkv" ? node.width : undefined;
}

/** Puts each operation into the earliest step after those that make its inputs; in order, into none before the last one's. */
function schedule(operations: readonly FusedOperation[], how: "earliest" | "inOrder"): FusedOperation[][] {
  const stepOf = new Map<PlanNode, number>();
  const steps: FusedOperation[][] = [];
  for (const operation of operations) {
    const first = how === "inOrder" ? Math.max(0, steps.length - 1) : 0;
    const step = operation.inputs.reduce((latest, input) => Math.max(latest, (stepOf.get(input) as number) + 1), first);
    for (const output of operation.outputs) stepOf.set(output, step);
    const list = steps[step] ?? [];
    list.push(operation);
    steps[step] = list;
  }
  return steps;
}

/** The memory of one value, or of several that take each other's place; from its first step to its last. */
interface Slot {
  size: number;
  from: number;
  to: number;
  /** How many operations of the last step use it. */
  users: number;
}

/** Gives each value the lowest place that no value living at the same time overlaps. Steps without a barrier are one time. */
function placeBuffers(
  steps: readonly (readonly FusedOperation[])[],
  barriers: readonly Barrier[],
  roots: readonly RowNode[],
  capacity: number,
) {
  const slots = slotsOf(steps, barriers, roots, capacity);
  const buffers = new Map<PlanNode, PlannedBuffer>();
  const offsets = new Map<Slot, number>();
  const placed: { offset: number; end: number; from: number; to: number }[] = [];
  let arenaSize = 0;
  for (const slot of new Set(slots.values())) {
    const neighbours = placed.filter((other) => other.from <= slot.to && slot.from <= other.to);
    neighbours.sort((a, b) => a.offset - b.offset);
    let offset = 0;
    for (const other of neighbours) {
      if (offset + slot.size <= other.offset) break;
      offset = Math.max(offset, other.end);
    }
    placed.push({ offset, end: offset + slot.size, from: slot.from, to: slot.to });
    offsets.set(slot, offset);
    arenaSize = Math.max(arenaSize, offset + slot.size);
  }
  for (const [node, slot] of slots) {
    buffers.set(node, { rows: node.rows, width: node.width, offset: offsets.get(slot) as number });
  }
  return { buffers, arenaSize };
}

function slotsOf(
  steps: readonly (readonly FusedOperation[])[],
  barriers: readonly Barrier[],
  roots: readonly RowNode[],
  capacity: number,
): Map<PlanNode, Slot> {
  const sizeOf = ({ rows, width }: PlanNode) =>
    Math.ceil((width * (typeof rows === "number" ? rows : capacity) * 4) / alignment) * alignment;
  const slots = new Map<PlanNode, Slot>();
  const replacing: FusedOperation[] = [];
  let time = 0;
  steps.forEach((step, i) => {
    if (barriers[i - 1] === "always") time++;
    for (const operation of step) {
      for (const node of operation.outputs) slots.set(node, { size: sizeOf(node), from: time, to: time, users: 0 });
      for (const node of new Set(operation.inputs)) {
        const slot = slots.get(node) as Slot;
        slot.users = slot.to === time && slot.from < time ? slot.users + 1 : 1;
        slot.to = time;
      }
      if (replaceable(operation).length > 0) replacing.push(operation);
    }
  });
  for (const root of roots) if (slots.has(root)) (slots.get(root) as Slot).to = time + 1;
  // A value that an operation uses last may be overwritten by what the operation makes of it, element by element.
  for (const operation of replacing) {
    const output = operation.outputs.find((node) => !("output" in node) || node.output === "gradient") as PlanNode;
    const after = slots.get(output);
    if (!after) continue;
    const fits = (slot: Slot | undefined) =>
      slot && slot.from < after.from && slot.to === after.from && slot.users === 1 && slot.size === after.size;
    const before = replaceable(operation)
      .map((node) => slots.get(node))
      .find(fits);
    if (!before) continue;
    before.to = after.to;
    before.users = after.users;
    slots.set(output, before);
  }
  return slots;
}

/** The inputs that an operation reads an element of only before it writes the same element of its output. */
function replaceable({ main }: FusedOperation): readonly PlanNode[] {
  switch (main.op) {
    case "unary":
    case "scale":
    case "dropout":
      return [main.x];
    case "binary":
      return [main.a, main.b];
    case "layerNormGradient":
      return [main.gradient];
    case "crossEntropy":
      return [main.logits];
    default:
      return [];
  }
}
