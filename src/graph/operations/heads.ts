// Reductions over heads: each row is `heads` parts of equal width.

import type { RowNode } from "../graph.js";
import { operation } from "../operation.js";
import { type Floats, momentsOf, zeros } from "../rows.js";
import { add } from "./elementwise.js";
import { constant } from "./leaves.js";

function requireHeads(name: string, width: number, heads: number): void {
  if (!(heads > 0) || width % heads !== 0) throw new RangeError(`${name}: rows of ${width} floats in ${heads} heads`);
}

/** The sum of each head's channels: a row of `heads` floats. */
export const headSum = operation({
  name: "headSum",
  inputs: ["x"],
  attributes: { heads: "count" },
  outputs: ["result"],
  sharedBy: "heads",
  shape({ x, heads }) {
    requireHeads("headSum", x.width, heads);
    return { result: { rows: x.rows, width: heads } };
  },
  reference({ x, heads }) {
    const out = zeros(x.rows, heads, x.values);
    const size = x.width / heads;
    for (let i = 0; i < out.values.length; i++) {
      let sum = 0;
      for (let c = i * size; c < (i + 1) * size; c++) sum += x.values[c] as number;
      out.values[i] = sum;
    }
    return { result: out };
  },
  gradient({ operands: { x }, gradients }, context) {
    // A head's gradient is that of each of its channels.
    context.add(x, () => add(gradients.result as RowNode, constant(0, x.width)));
  },
});

/**
 * (x - mean) / sqrt(variance + epsilon) over each head: group normalization, arXiv 1803.08494, equation 1, a group a head, without
 * weight and bias, which elementwise functions add.
 */
export const headNorm = operation({
  name: "headNorm",
  inputs: ["x"],
  attributes: { heads: "count", epsilon: "number" },
  outputs: ["result"],
  sharedBy: "heads",
  shape({ x, heads }) {
    requireHeads("headNorm", x.width, heads);
    return { result: x };
  },
  reference({ x, heads, epsilon }) {
    const out = zeros(x.rows, x.width, x.values);
    const size = x.width / heads;
    for (let start = 0; start < x.values.length; start += size) {
      const { mean, scale } = momentsOf(x, start, size, epsilon);
      for (let i = start; i < start + size; i++) out.values[i] = ((x.values[i] as number) - mean) * scale;
    }
    return { result: out };
  },
  gradient({ operands: { x, heads, epsilon }, gradients }, context) {
    context.add(x, () => {
      const gradient = gradients.result as RowNode;
      return headNormGradient.apply({ x: context.value(x), gradient, heads, epsilon }).result;
    });
  },
});

/** The gradient of headNorm for its input: mean and scale both depend on every channel of the head. */
const headNormGradient = operation({
  name: "headNormGradient",
  inputs: ["x", "gradient"],
  attributes: { heads: "count", epsilon: "number" },
  outputs: ["result"],
  sharedBy: "heads",
  shape: ({ x }) => ({ result: x }),
  reference({ x, gradient, heads, epsilon }) {
    const out = zeros(x.rows, x.width, x.values);
    const size = x.width / heads;
    for (let start = 0; start < x.values.length; start += size) {
      const { mean, scale } = momentsOf(x, start, size, epsilon);
      const normal = (i: number) => ((x.values[i] as number) - mean) * scale;
      let total = 0;
      let product = 0;
      for (let i = start; i < start + size; i++) {
        total += gradient.values[i] as number;
        product += (gradient.values[i] as number) * normal(i);
      }
      for (let i = start; i < start + size; i++) {
        out.values[i] = scale * ((gradient.values[i] as number) - total / size - (normal(i) * product) / size);
      }
    }
    return { result: out };
  },
  gradient: { none: "only gradients are built of it" },
});

/**
 * x / max(|x|, epsilon) over each head, with |x| the Euclidean norm: what torch.nn.functional.normalize does (section 4 of arXiv
 * 2503.14456 has keys normalized so).
 */
export const headNormalize = operation({
  name: "headNormalize",
  inputs: ["x"],
  attributes: { heads: "count", epsilon: "number" },
  outputs: ["result"],
  sharedBy: "heads",
  shape({ x, heads }) {
    requireHeads("headNormalize", x.width, heads);
    return { result: x };
  },
  reference({ x, heads, epsilon }) {
    const out = zeros(x.rows, x.width, x.values);
    const size = x.width / heads;
    for (let start = 0; start < x.values.length; start += size) {
      const scale = 1 / Math.max(lengthOf(x.values, start, size), epsilon);
      for (let i = start; i < start + size; i++) out.values[i] = (x.values[i] as number) * scale;
    }
    return { result: out };
  },
  gradient({ operands: { x, heads, epsilon }, gradients }, context) {
    context.add(x, () => {
      const gradient = gradients.result as RowNode;
      return headNormalizeGradient.apply({ x: context.value(x), gradient, heads, epsilon }).result;
    });
  },
});

/** The gradient of headNormalize for its input: what lies along x changes its length alone, which does not matter. */
const headNormalizeGradient = operation({
  name: "headNormalizeGradient",
  inputs: ["x", "gradient"],
  attributes: { heads: "count", epsilon: "number" },
  outputs: ["result"],
  sharedBy: "heads",
  shape: ({ x }) => ({ result: x }),
  reference({ x, gradient, heads, epsilon }) {
    const out = zeros(x.rows, x.width, x.values);
    const size = x.width / heads;
    for (let start = 0; start < x.values.length; start += size) {
      const length = lengthOf(x.values, start, size);
      const scale = 1 / Math.max(length, epsilon);
      let along = 0;
      for (let i = start; i < start + size; i++) along += (gradient.values[i] as number) * (x.values[i] as number);
      // Below epsilon the factor does not depend on x.
      const share = length > epsilon ? along * scale * scale : 0;
      for (let i = start; i < start + size; i++) {
        out.values[i] = scale * ((gradient.values[i] as number) - share * (x.values[i] as number));
      }
    }
    return { result: out };
  },
  gradient: { none: "only gradients are built of it" },
});

function lengthOf(values: Floats, start: number, count: number): number {
  let squares = 0;
  for (let i = start; i < start + count; i++) squares += (values[i] as number) ** 2;
  return Math.sqrt(squares);
}
