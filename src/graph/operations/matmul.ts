// Products of rows with a weight matrix, and the gradients of both.

import { quantizedRowWidth, roundTripRow } from "../../quantization/blocks.js";
import type { RowNode } from "../graph.js";
import { operation } from "../operation.js";
import { addAt, type Rows, zeros } from "../rows.js";

const onlyInGradients = { none: "only gradients are built of it" };

/** result[t][o] = sum over i of weight[o][i] * x[t][i]; a weight [outputs, inputs]. */
export const matmul = operation({
  name: "matmul",
  inputs: ["x"],
  matrices: { weight: "product" },
  outputs: ["result"],
  epilogue: { activations: ["sigmoid", "reluSquared", "tanh"], multiplier: true, addend: true },
  shape({ x, weight }) {
    const [outputs, inputs] = weight.shape as [number, number];
    if (inputs !== x.width) throw new RangeError(`matmul ${weight.name}: expected rows of ${inputs}, found ${x.width}`);
    return { result: { rows: x.rows, width: outputs } };
  },
  reference({ x, weight }) {
    const inputs = weight.isInBlocks ? roundedToBlocks(x) : x;
    const out = zeros(x.rows, weight.rows, weight.values);
    for (let t = 0; t < x.rows; t++) {
      for (let o = 0; o < weight.rows; o++) {
        let sum = 0;
        for (let i = 0; i < x.width; i++) {
          sum += (weight.values[o * weight.width + i] as number) * (inputs.values[t * x.width + i] as number);
        }
        out.values[t * weight.rows + o] = sum;
      }
    }
    return { result: out };
  },
  gradient({ operands: { x, weight }, gradients }, context) {
    const gradient = gradients.result as RowNode;
    context.addMatrix(weight, () => weightGradient.apply({ x: context.value(x), gradient }).result);
    context.add(x, () => transposedMatmul.apply({ x: gradient, weight }).result);
  },
});

/**
 * The same of rows that are mostly zeros, with a second form of the weight, input by input, so that what zeros are multiplied by
 * need not be read; put in the place of products by the planner, not by models.
 */
export const sparseMatmul = operation({
  name: "sparseMatmul",
  inputs: ["x"],
  matrices: { weight: "product", byInput: "product" },
  outputs: ["result"],
  epilogue: { activations: ["sigmoid", "reluSquared", "tanh"], multiplier: true, addend: true },
  shape: ({ x, weight }) => ({ result: { rows: x.rows, width: weight.shape[0] as number } }),
  reference({ x, weight }) {
    const inputs = weight.isInBlocks ? roundedToBlocks(x) : x;
    const out = zeros(x.rows, weight.rows, weight.values);
    for (let t = 0; t < x.rows; t++) {
      for (let i = 0; i < x.width; i++) {
        const value = inputs.values[t * x.width + i] as number;
        if (value === 0) continue;
        for (let o = 0; o < weight.rows; o++) {
          addAt(out.values, t * weight.rows + o, (weight.values[o * weight.width + i] as number) * value);
        }
      }
    }
    return { result: out };
  },
  gradient: { none: "it is no part of a model" },
});

/** result[t][i] = sum over o of x[t][o] * weight[o][i]: the gradient for the input of a product. */
const transposedMatmul = operation({
  name: "transposedMatmul",
  inputs: ["x"],
  matrices: { weight: "product" },
  outputs: ["result"],
  shape: ({ x, weight }) => ({ result: { rows: x.rows, width: weight.shape[1] as number } }),
  reference({ x, weight }) {
    const out = zeros(x.rows, weight.width, x.values);
    for (let t = 0; t < x.rows; t++) {
      const sums = new Float64Array(weight.width);
      for (let o = 0; o < weight.rows; o++) {
        const g = x.values[t * weight.rows + o] as number;
        for (let i = 0; i < weight.width; i++) addAt(sums, i, g * (weight.values[o * weight.width + i] as number));
      }
      out.values.set(sums, t * weight.width);
    }
    return { result: out };
  },
  gradient: onlyInGradients,
});

/** result[o][i] = sum over t of gradient[t][o] * x[t][i]: the gradient for the weight of a product. */
export const weightGradient = operation({
  name: "weightGradient",
  inputs: ["x", "gradient"],
  outputs: ["result"],
  shape: ({ x, gradient }) => ({ result: { rows: gradient.width, width: x.width } }),
  reference({ x, gradient }) {
    const sums = new Float64Array(gradient.width * x.width);
    for (let t = 0; t < x.rows; t++) {
      for (let o = 0; o < gradient.width; o++) {
        const g = gradient.values[t * gradient.width + o] as number;
        for (let i = 0; i < x.width; i++) addAt(sums, o * x.width + i, g * (x.values[t * x.width + i] as number));
      }
    }
    const out = zeros(gradient.width, x.width, x.values);
    out.values.set(sums);
    return { result: out };
  },
  gradient: onlyInGradients,
});

/** Rows in blocks of 8 bits, as products with weights in blocks take them; put before them by the planner, not by models. */
export const quantizeRows = operation({
  name: "quantizeRows",
  inputs: ["x"],
  outputs: ["result"],
  sharedBy: "channels",
  shape: ({ x }) => ({ result: { rows: x.rows, width: quantizedRowWidth(x.width) } }),
  reference: ({ x }) => ({ result: roundedToBlocks(x) }),
  gradient: { none: "it is no part of a model" },
});

function roundedToBlocks(x: Rows): Rows {
  const values = new Float64Array(x.values.length);
  for (let t = 0; t < x.rows; t++) {
    values.set(roundTripRow(Float32Array.from(x.values.subarray(t * x.width, (t + 1) * x.width))), t * x.width);
  }
  return { ...x, values };
}
