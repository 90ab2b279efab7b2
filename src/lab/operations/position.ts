// Learned positions: x plus the row of a table for each token's place in its sequence (arXiv 1706.03762, section 3.5).

import type { RowNode, WeightNode } from "../../graph/graph.js";
import type { GraphBuilder } from "../../graph/graph-builder.js";
import { operation } from "../../graph/operation.js";
import { requireTokens } from "../../graph/operations/checks.js";
import { addAt, type RowRange, zeros } from "../../graph/rows.js";

const addPositionOperation = operation({
  name: "addPosition",
  inputs: ["x"],
  matrices: { table: "table" },
  states: ["position"],
  outputs: ["result"],
  shape({ x }) {
    requireTokens("addPosition", x);
    return { result: x };
  },
  reference({ x, table, position }, { ranges }) {
    const out = zeros(x.rows, x.width, x.values);
    for (const range of ranges) {
      for (let t = range.start; t < range.start + range.count; t++) {
        for (let c = 0; c < x.width; c++) {
          const place = table.values[positionOf(range, t, position, table.rows) * x.width + c] as number;
          out.values[t * x.width + c] = (x.values[t * x.width + c] as number) + place;
        }
      }
      const after = (range.state[position] as number) + range.count;
      for (let c = 0; c < x.width; c++) range.nextState[position + c] = after;
    }
    return { result: out };
  },
  gradient({ operands: { x, table, position }, gradients }, context) {
    const gradient = gradients.result as RowNode;
    const capacity = table.shape[0] as number;
    context.addMatrix(table, () => positionGradient.apply({ gradient, position, capacity }).result);
    context.add(x, () => gradient);
  },
});

const positionGradient = operation({
  name: "positionGradient",
  inputs: ["gradient"],
  states: ["position"],
  attributes: { capacity: "count" },
  outputs: ["result"],
  shape: ({ gradient, capacity }) => ({ result: { rows: capacity, width: gradient.width } }),
  reference({ gradient, position, capacity }, { ranges }) {
    const out = zeros(capacity, gradient.width, gradient.values);
    for (const range of ranges) {
      for (let t = range.start; t < range.start + range.count; t++) {
        const row = positionOf(range, t, position, capacity);
        for (let c = 0; c < gradient.width; c++) {
          addAt(out.values, row * gradient.width + c, gradient.values[t * gradient.width + c] as number);
        }
      }
    }
    return { result: out };
  },
  gradient: { none: "only gradients are built of it" },
});

/** Beyond the table its last row stands for all. */
function positionOf({ state, start }: RowRange, t: number, offset: number, rows: number): number {
  return Math.min((state[offset] as number) + t - start, rows - 1);
}

/** x plus the row of the table for each token's position in its sequence; a table [capacity, width]. */
export function addPosition(g: GraphBuilder, x: RowNode, table: WeightNode): RowNode {
  return addPositionOperation.apply({ x, table, position: g.state(x.width, 0) }).result;
}
