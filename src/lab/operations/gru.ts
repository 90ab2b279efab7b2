// The gated recurrent unit, arXiv 1406.1078, equations 5 to 8, forward and back.

import type { RowNode, WeightNode } from "../../graph/graph.js";
import type { GraphBuilder } from "../../graph/graph-builder.js";
import { operation } from "../../graph/operation.js";
import { requireTokens, requireWidth } from "../../graph/operations/checks.js";
import { weightGradient } from "../../graph/operations/matmul.js";
import { previousRows } from "../../graph/operations/token-shift.js";
import { addAt, type Rows, rowBefore, zeros } from "../../graph/rows.js";
import { product, transposedProduct } from "./products.js";

/**
 * Rows and matrices of both gates and of the candidate; gives the state, what the gates were, and what the reset gate kept of the
 * state.
 */
const gruOperation = operation({
  name: "gru",
  inputs: ["update", "reset", "candidate"],
  matrices: { updateWeight: "float32", resetWeight: "float32", candidateWeight: "float32" },
  states: ["state"],
  outputs: ["state", "update", "reset", "candidate", "resetState"],
  shape({ update, reset, candidate }) {
    requireTokens("gru", update, reset, candidate);
    requireWidth("gru", update, reset, candidate);
    return { state: update, update, reset, candidate, resetState: update };
  },
  reference(operands, { ranges }) {
    const { width } = operands.update;
    const make = () => zeros(operands.update.rows, width, operands.update.values);
    const out = { state: make(), update: make(), reset: make(), candidate: make(), resetState: make() };
    const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
    for (const range of ranges) {
      for (let t = range.start; t < range.start + range.count; t++) {
        const before = Float64Array.from(rowBefore(out.state, range, operands.state, t));
        const fromUpdate = product(operands.updateWeight, before);
        const fromReset = product(operands.resetWeight, before);
        for (let c = 0; c < width; c++) {
          const at = t * width + c;
          out.update.values[at] = sigmoid((operands.update.values[at] as number) + (fromUpdate[c] as number));
          out.reset.values[at] = sigmoid((operands.reset.values[at] as number) + (fromReset[c] as number));
          out.resetState.values[at] = (out.reset.values[at] as number) * (before[c] as number);
        }
        const kept = product(operands.candidateWeight, out.resetState.values.subarray(t * width, (t + 1) * width));
        for (let c = 0; c < width; c++) {
          const at = t * width + c;
          const z = out.update.values[at] as number;
          const n = Math.tanh((operands.candidate.values[at] as number) + (kept[c] as number));
          out.candidate.values[at] = n;
          out.state.values[at] = z * (before[c] as number) + (1 - z) * n;
        }
      }
      range.nextState.set(rowBefore(out.state, range, operands.state, range.start + range.count), operands.state);
    }
    return out;
  },
  gradient({ operands, outputs, gradients }, context) {
    const { updateWeight, resetWeight, candidateWeight, state } = operands;
    const weights = { updateWeight, resetWeight, candidateWeight, state };
    const result = context.value(outputs.state);
    const gates = {
      update: context.value(outputs.update),
      reset: context.value(outputs.reset),
      candidate: context.value(outputs.candidate),
    };
    const d = gruGradient.apply({ result, ...gates, gradient: gradients.state as RowNode, ...weights });
    const before = previousRows.apply({ x: result, state }).result;
    const resetState = context.value(outputs.resetState);
    context.addMatrix(updateWeight, () => weightGradient.apply({ x: before, gradient: d.update }).result);
    context.addMatrix(resetWeight, () => weightGradient.apply({ x: before, gradient: d.reset }).result);
    context.addMatrix(candidateWeight, () => weightGradient.apply({ x: resetState, gradient: d.candidate }).result);
    context.add(operands.update, () => d.update);
    context.add(operands.reset, () => d.reset);
    context.add(operands.candidate, () => d.candidate);
  },
});

/** The gradients for the rows of both gates and the candidate, walking back. */
const gruGradient = operation({
  name: "gruGradient",
  inputs: ["result", "update", "reset", "candidate", "gradient"],
  matrices: { updateWeight: "float32", resetWeight: "float32", candidateWeight: "float32" },
  states: ["state"],
  outputs: ["update", "reset", "candidate"],
  alwaysWritten: ["update", "reset", "candidate"],
  shape: ({ gradient }) => ({ update: gradient, reset: gradient, candidate: gradient }),
  reference(operands, { ranges }) {
    const { result, update, reset, candidate, gradient } = operands;
    const { width } = result;
    const make = () => zeros(result.rows, width, result.values);
    const out = { update: make(), reset: make(), candidate: make() };
    for (const range of ranges) {
      let carried = new Float64Array(width);
      for (let t = range.start + range.count - 1; t >= range.start; t--) {
        const before = rowBefore(result, range, operands.state, t);
        const row = (rows: Rows) => rows.values.subarray(t * width, (t + 1) * width);
        const kept = new Float64Array(width);
        for (let c = 0; c < width; c++) {
          const at = t * width + c;
          const dh = (gradient.values[at] as number) + (carried[c] as number);
          const z = update.values[at] as number;
          const n = candidate.values[at] as number;
          out.update.values[at] = dh * ((before[c] as number) - n) * z * (1 - z);
          out.candidate.values[at] = dh * (1 - z) * (1 - n * n);
          kept[c] = dh * z;
        }
        const dresetState = transposedProduct(operands.candidateWeight, row(out.candidate));
        for (let c = 0; c < width; c++) {
          const at = t * width + c;
          const r = reset.values[at] as number;
          out.reset.values[at] = (dresetState[c] as number) * (before[c] as number) * r * (1 - r);
          addAt(kept, c, (dresetState[c] as number) * r);
        }
        const viaUpdate = transposedProduct(operands.updateWeight, row(out.update));
        const viaReset = transposedProduct(operands.resetWeight, row(out.reset));
        carried = kept.map((value, c) => value + (viaUpdate[c] as number) + (viaReset[c] as number));
      }
    }
    return out;
  },
  gradient: { none: "only gradients are built of it" },
});

/** What a gated recurrent unit takes: rows and a matrix [width, width] for each of its gates and its candidate. */
export interface Gates {
  readonly update: RowNode;
  readonly reset: RowNode;
  readonly candidate: RowNode;
  readonly updateWeight: WeightNode;
  readonly resetWeight: WeightNode;
  readonly candidateWeight: WeightNode;
}

/** The states of a gated recurrent unit. */
export function gru(g: GraphBuilder, gates: Gates): RowNode {
  return gruOperation.apply({ ...gates, state: g.state(gates.update.width, 0) }).state;
}
