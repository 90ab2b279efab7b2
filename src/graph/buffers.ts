// Places every intermediate value of a plan in one block of memory, the arena: values whose lifetimes do not overlap share
// memory.

import type { Barrier } from "./barriers.js";
import type { FusedOperation } from "./fusion.js";
import type { RowNode, RowSet } from "./graph.js";

/** A value's place in the arena. */
export interface PlannedBuffer {
  readonly rows: RowSet;
  /** Floats in a row. */
  readonly width: number;
  /** Position in the arena, in bytes; a multiple of 64. */
  readonly offset: number;
}

const alignment = 64;

/** The memory of one value, or of several that take each other's place; from its first step to its last. */
interface Slot {
  size: number;
  from: number;
  to: number;
  /** How many operations of the last step use it. */
  users: number;
  /** The value that was put there last. */
  occupant: RowNode;
}

/**
 * Gives each value the lowest place that no value living at the same time overlaps. Steps that no barrier separates count as
 * the same time, since threads may be in any of them.
 */
export function placeBuffers(
  steps: readonly (readonly FusedOperation[])[],
  barriers: readonly Barrier[],
  roots: readonly RowNode[],
  capacity: number,
) {
  const slots = slotsOf(steps, barriers, roots, capacity);
  const buffers = new Map<RowNode, PlannedBuffer>();
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
): Map<RowNode, Slot> {
  const sizeOf = ({ rows, width }: RowNode) =>
    Math.ceil((width * (typeof rows === "number" ? rows : capacity) * 4) / alignment) * alignment;
  const slots = new Map<RowNode, Slot>();
  const replacements: FusedOperation["inPlace"][number][] = [];
  let time = 0;
  steps.forEach((step, i) => {
    if (barriers[i - 1] === "always") time++;
    for (const operation of step) {
      for (const node of operation.outputs) {
        slots.set(node, { size: sizeOf(node), from: time, to: time, users: 0, occupant: node });
      }
      for (const node of new Set(operation.inputs)) {
        // What is given is there before the first step.
        const slot = slots.get(node) ?? { size: sizeOf(node), from: -1, to: -1, users: 0, occupant: node };
        slots.set(node, slot);
        slot.users = slot.to === time && slot.from < time ? slot.users + 1 : 1;
        slot.to = time;
      }
      replacements.push(...operation.inPlace);
    }
  });
  for (const root of roots) if (slots.has(root)) (slots.get(root) as Slot).to = time + 1;
  // An operation that is the last to use a value may overwrite it with its output, element by element.
  for (const { output, inputs } of replacements) {
    const after = slots.get(output);
    if (!after) continue;
    const fits = (slot: Slot | undefined) =>
      slot && slot.from < after.from && slot.to === after.from && slot.users === 1 && slot.size === after.size;
    const free = inputs.filter((node) => slots.get(node)?.occupant === node);
    const before = free.map((node) => slots.get(node)).find(fits);
    if (!before) continue;
    before.to = after.to;
    before.users = after.users;
    before.occupant = output;
    slots.set(output, before);
  }
  return slots;
}
