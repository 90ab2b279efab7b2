// Layer normalization, arXiv 1607.06450, equation 4, with the biased variance.

import type { RowNode } from "../graph.js";
import { operation } from "../operation.js";
import { addAt, momentsOf, type Rows, zeros } from "../rows.js";
import { requireLength } from "./checks.js";
import { columnSums } from "./sums.js";

const onlyInGradients = { none: "only gradients are built of it" };

/** (x - mean) / sqrt(variance + epsilon) * weight + bias, over each row. */
export const layerNorm = operation({
  name: "layerNorm",
  inputs: ["x"],
  vectors: ["weight", "bias"],
  attributes: { epsilon: "number" },
  outputs: ["result"],
  sharedBy: "rows or channels",
  shape({ x, weight, bias }) {
    requireLength("layerNorm", x.width, weight, bias);
    return { result: x };
  },
  reference({ x, weight, bias, epsilon }) {
    const out = zeros(x.rows, x.width, x.values);
    for (let t = 0; t < x.rows; t++) {
      const { mean, scale } = momentsOf(x, t * x.width, x.width, epsilon);
      for (let c = 0; c < x.width; c++) {
        const normal = ((x.values[t * x.width + c] as number) - mean) * scale;
        out.values[t * x.width + c] = normal * (weight[c] as number) + (bias[c] as number);
      }
    }
    return { result: out };
  },
  gradient({ operands: { x, weight, bias, epsilon }, gradients }, context) {
    const gradient = gradients.result as RowNode;
    const input = context.value(x);
    context.addVector(weight, () => {
      const moments = rowMoments.apply({ x: input, epsilon }).result;
      return layerNormWeightGradient.apply({ x: input, moments, gradient }).result;
    });
    context.addVector(bias, () => columnSums.apply({ x: gradient }).result);
    context.add(x, () => layerNormGradient.apply({ x: input, weight, gradient, epsilon }).result);
  },
});

/** The gradient for the input: mean and scale both depend on every channel. */
const layerNormGradient = operation({
  name: "layerNormGradient",
  inputs: ["x", "gradient"],
  vectors: ["weight"],
  attributes: { epsilon: "number" },
  outputs: ["result"],
  inPlace: { output: "result", inputs: ["gradient"] },
  shape: ({ x }) => ({ result: x }),
  reference({ x, weight, gradient, epsilon }) {
    const out = zeros(x.rows, x.width, x.values);
    for (let t = 0; t < x.rows; t++) {
      const { mean, scale } = momentsOf(x, t * x.width, x.width, epsilon);
      const g = (c: number) => (gradient.values[t * x.width + c] as number) * (weight[c] as number);
      const normal = (c: number) => ((x.values[t * x.width + c] as number) - mean) * scale;
      let total = 0;
      let product = 0;
      for (let c = 0; c < x.width; c++) {
        total += g(c);
        product += g(c) * normal(c);
      }
      for (let c = 0; c < x.width; c++) {
        out.values[t * x.width + c] = scale * (g(c) - total / x.width - (normal(c) * product) / x.width);
      }
    }
    return { result: out };
  },
  gradient: onlyInGradients,
});

/** Mean and 1 / sqrt(variance + epsilon) of each row. */
const rowMoments = operation({
  name: "rowMoments",
  inputs: ["x"],
  attributes: { epsilon: "number" },
  outputs: ["result"],
  shape: ({ x }) => ({ result: { rows: x.rows, width: 2 } }),
  reference({ x, epsilon }) {
    const out = zeros(x.rows, 2, x.values);
    for (let t = 0; t < x.rows; t++) {
      const { mean, scale } = momentsOf(x, t * x.width, x.width, epsilon);
      out.values.set([mean, scale], 2 * t);
    }
    return { result: out };
  },
  gradient: onlyInGradients,
});

/** The gradient for the weight: the sum over rows of gradient * (x - mean) * scale. */
const layerNormWeightGradient = operation({
  name: "layerNormWeightGradient",
  inputs: ["x", "moments", "gradient"],
  outputs: ["result"],
  shape: ({ x }) => ({ result: { rows: 1, width: x.width } }),
  reference({ x, moments, gradient }) {
    const out: Rows = zeros(1, x.width, x.values);
    const sums = new Float64Array(x.width);
    for (let t = 0; t < x.rows; t++) {
      const [mean, scale] = moments.values.subarray(2 * t, 2 * t + 2) as unknown as [number, number];
      for (let c = 0; c < x.width; c++) {
        const at = t * x.width + c;
        addAt(sums, c, (gradient.values[at] as number) * ((x.values[at] as number) - mean) * scale);
      }
    }
    out.values.set(sums);
    return { result: out };
  },
  gradient: onlyInGradients,
});
