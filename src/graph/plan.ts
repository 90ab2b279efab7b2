// Compiles a graph to a plan: fused operations in steps, and a place for every intermediate value. Operations of one step
// do not depend on each other, so threads need to meet only between steps, and not even there where each thread goes on with the
// channels that are its own; values whose lives do not overlap share memory.

import { type Activation, type FusedOperation, fuse, type PlanNode } from "./fusion.js";
import type { Graph, RowSet, WeightNode } from "./graph.js";

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

/**
 * @param capacity most tokens of one pass
 * @param quantized the weights that are in blocks
 */
export function planGraph(graph: Graph, capacity: number, quantized?: ReadonlySet<WeightNode>): Plan {
  const operations = fuse(graph, quantized);
  const steps = schedule(operations);
  const barriers = steps.map((step, i) => barrierBetween(step, steps[i + 1]));
  const { buffers, arenaSize } = placeBuffers(steps, barriers, graph.output, capacity);
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

/** Puts each operation into the earliest step after those that make its inputs. */
function schedule(operations: readonly FusedOperation[]): FusedOperation[][] {
  const stepOf = new Map<PlanNode, number>();
  const steps: FusedOperation[][] = [];
  for (const operation of operations) {
    const step = operation.inputs.reduce((latest, input) => Math.max(latest, (stepOf.get(input) as number) + 1), 0);
    for (const output of operation.outputs) stepOf.set(output, step);
    const list = steps[step] ?? [];
    list.push(operation);
    steps[step] = list;
  }
  return steps;
}

/** Gives each value the lowest place that no value living at the same time overlaps. Steps without a barrier are one time. */
function placeBuffers(
  steps: readonly (readonly FusedOperation[])[],
  barriers: readonly Barrier[],
  output: PlanNode,
  capacity: number,
) {
  const lives = new Map<PlanNode, { from: number; to: number }>();
  let index = 0;
  steps.forEach((step, i) => {
    if (barriers[i - 1] === "always") index++;
    for (const operation of step) {
      for (const node of operation.outputs) lives.set(node, { from: index, to: index });
      for (const node of operation.inputs) (lives.get(node) as { to: number }).to = index;
    }
  });
  (lives.get(output) as { to: number }).to = index + 1;

  const buffers = new Map<PlanNode, PlannedBuffer>();
  const placed: { offset: number; end: number; from: number; to: number }[] = [];
  let arenaSize = 0;
  for (const [node, life] of lives) {
    const size = Math.ceil((node.width * capacity * 4) / alignment) * alignment;
    const neighbours = placed.filter((other) => other.from <= life.to && life.from <= other.to);
    neighbours.sort((a, b) => a.offset - b.offset);
    let offset = 0;
    for (const other of neighbours) {
      if (offset + size <= other.offset) break;
      offset = Math.max(offset, other.end);
    }
    placed.push({ offset, end: offset + size, ...life });
    buffers.set(node, { rows: node.rows, width: node.width, offset });
    arenaSize = Math.max(arenaSize, offset + size);
  }
  return { buffers, arenaSize };
}
