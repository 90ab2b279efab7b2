// Compiles a graph to a plan: fused operations in steps, and a place for every intermediate value. Operations of one step
// do not depend on each other, so threads need to meet only between steps; values whose lives do not overlap share memory.

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

/** A compiled graph. */
export interface Plan {
  /** Operations in steps; all of a step must be done before the next begins. */
  readonly steps: readonly (readonly FusedOperation[])[];
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
  const { buffers, arenaSize } = placeBuffers(steps, graph.output, capacity);
  return { steps, buffers, arenaSize, capacity };
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

/** Gives each value the lowest place that no value living at the same time overlaps. */
function placeBuffers(steps: readonly (readonly FusedOperation[])[], output: PlanNode, capacity: number) {
  const lives = new Map<PlanNode, { from: number; to: number }>();
  steps.forEach((step, index) => {
    for (const operation of step) {
      for (const node of operation.outputs) lives.set(node, { from: index, to: index });
      for (const node of operation.inputs) (lives.get(node) as { to: number }).to = index;
    }
  });
  (lives.get(output) as { to: number }).to = steps.length;

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
