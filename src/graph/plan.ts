// Compiles a graph to a plan: fused operations in steps, and a place for every intermediate value. Operations of one step
// do not depend on each other, so threads need a barrier only between steps, and not even there where each thread continues with
// the channels that are its own.

import { type Barrier, barrierBetween } from "./barriers.js";
import { type PlannedBuffer, placeBuffers } from "./buffers.js";
import { type FusedOperation, fuse, type WeightLayouts } from "./fusion.js";
import type { RowNode } from "./graph.js";

/** A compiled graph. */
export interface Plan {
  /** The values wanted, which stay until the end of a pass. */
  readonly roots: readonly RowNode[];
  /** Operations in steps; all of a step must be done before the next begins, as far as threads see each other's work. */
  readonly steps: readonly (readonly FusedOperation[])[];
  /** What ends each step. */
  readonly barriers: readonly Barrier[];
  readonly buffers: ReadonlyMap<RowNode, PlannedBuffer>;
  /** Bytes of the arena that holds all buffers. */
  readonly arenaSize: number;
  /** The most rows of tokens, and of selected tokens, in a pass. */
  readonly capacity: number;
}

export interface PlanOptions extends WeightLayouts {
  /**
   * "earliest" schedules every operation as early as possible, so that there are few barriers; "inOrder" keeps the order in which
   * the roots need the operations, so that few values are live at a time.
   */
  readonly schedule?: "earliest" | "inOrder";
}

/**
 * @param roots the values wanted
 * @param capacity most tokens of one pass
 */
export function planGraph(roots: readonly RowNode[], capacity: number, options: PlanOptions = {}): Plan {
  const operations = fuse(roots, options);
  const steps = schedule(operations, options.schedule ?? "earliest");
  const barriers = steps.map((step, i) => barrierBetween(step, steps[i + 1]));
  const { buffers, arenaSize } = placeBuffers(steps, barriers, roots, capacity);
  return { roots, steps, barriers, buffers, arenaSize, capacity };
}

/** Puts each operation into the earliest step after those that make its inputs; in order, into none before the last one's. */
function schedule(operations: readonly FusedOperation[], how: "earliest" | "inOrder"): FusedOperation[][] {
  const stepOf = new Map<RowNode, number>();
  const steps: FusedOperation[][] = [];
  for (const operation of operations) {
    const first = how === "inOrder" ? Math.max(0, steps.length - 1) : 0;
    const step = operation.inputs.reduce((latest, input) => Math.max(latest, (stepOf.get(input) ?? -1) + 1), first);
    for (const output of operation.outputs) stepOf.set(output, step);
    const list = steps[step] ?? [];
    list.push(operation);
    steps[step] = list;
  }
  return steps;
}
