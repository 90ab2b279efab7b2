// The simple recurrent network: Elman, Cognitive Science 14, 1990: h[t] = tanh(x[t] + U h[t-1]).

import type { RowNode, WeightNode } from "../../graph/graph.js";
import type { GraphBuilder } from "../../graph/graph-builder.js";
import { operation } from "../../graph/operation.js";
import { requireTokens } from "../../graph/operations/checks.js";
import { weightGradient } from "../../graph/operations/matmul.js";
import { previousRows } from "../../graph/operations/token-shift.js";
import { rowBefore, zeros } from "../../graph/rows.js";
import { product, transposedProduct } from "./products.js";

const elmanOperation = operation({
  name: "elman",
  inputs: ["x"],
  matrices: { weight: "float32" },
  states: ["state"],
  outputs: ["result"],
  shape({ x }) {
    requireTokens("elman", x);
    return { result: x };
  },
  reference({ x, weight, state }, { ranges }) {
    const out = zeros(x.rows, x.width, x.values);
    for (const range of ranges) {
      for (let t = range.start; t < range.start + range.count; t++) {
        const from = product(weight, rowBefore(out, range, state, t));
        for (let c = 0; c < x.width; c++) {
          out.values[t * x.width + c] = Math.tanh((x.values[t * x.width + c] as number) + (from[c] as number));
        }
      }
      range.nextState.set(rowBefore(out, range, state, range.start + range.count), state);
    }
    return { result: out };
  },
  gradient({ operands: { x, weight, state }, outputs, gradients }, context) {
    const result = context.value(outputs.result);
    const dx = elmanGradient.apply({ result, gradient: gradients.result as RowNode, weight }).result;
    const before = previousRows.apply({ x: result, state }).result;
    context.addMatrix(weight, () => weightGradient.apply({ x: before, gradient: dx }).result);
    context.add(x, () => dx);
  },
});

/** The gradient for x: (dh[t] + U^T dx[t+1]) (1 - h[t]^2). */
const elmanGradient = operation({
  name: "elmanGradient",
  inputs: ["result", "gradient"],
  matrices: { weight: "float32" },
  outputs: ["result"],
  shape: ({ gradient }) => ({ result: gradient }),
  reference({ result, gradient, weight }, { ranges }) {
    const out = zeros(result.rows, result.width, result.values);
    const { width } = result;
    for (const { start, count } of ranges) {
      let later = new Float64Array(width);
      for (let t = start + count - 1; t >= start; t--) {
        for (let c = 0; c < width; c++) {
          const h = result.values[t * width + c] as number;
          const dh = (gradient.values[t * width + c] as number) + (later[c] as number);
          out.values[t * width + c] = dh * (1 - h * h);
        }
        later = transposedProduct(weight, out.values.subarray(t * width, (t + 1) * width));
      }
    }
    return { result: out };
  },
  gradient: { none: "only gradients are built of it" },
});

/** h[t] = tanh(x[t] + weight h[t-1]) */
export function elman(g: GraphBuilder, x: RowNode, weight: WeightNode): RowNode {
  return elmanOperation.apply({ x, weight, state: g.state(x.width, 0) }).result;
}
