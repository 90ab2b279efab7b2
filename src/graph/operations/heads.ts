// Reductions over heads: each row is `heads` parts of equal width.

import type { RowNode } from "../graph.js";
import { operation } from "../operation.js";
import { type Floats, momentsOf, type Rows, zeros } from "../rows.js";
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

/** One head of some rows: where it starts in their values, and how many channels it has. */
interface Head {
  readonly x: Rows;
  readonly start: number;
  readonly size: number;
  readonly epsilon: number;
}

/** A function of each head and its gradient for the input; both give the function that computes the element at a position. */
interface HeadFunction {
  readonly name: string;
  readonly plain: (head: Head) => (i: number) => number;
  readonly gradient: (head: Head, gradient: Floats) => (i: number) => number;
}

/** The operation of a function that gives as many channels as it takes. */
function headOperation({ name, plain, gradient: plainGradient }: HeadFunction) {
  const gradientOperation = operation({
    name: `${name}Gradient`,
    inputs: ["x", "gradient"],
    attributes: { heads: "count", epsilon: "number" },
    outputs: ["result"],
    sharedBy: "heads",
    shape: ({ x }) => ({ result: x }),
    reference: ({ x, gradient, heads, epsilon }) => ({
      result: mapHeads(x, heads, (start, size) => plainGradient({ x, start, size, epsilon }, gradient.values)),
    }),
    gradient: { none: "only gradients are built of it" },
  });
  return operation({
    name,
    inputs: ["x"],
    attributes: { heads: "count", epsilon: "number" },
    outputs: ["result"],
    sharedBy: "heads",
    shape({ x, heads }) {
      requireHeads(name, x.width, heads);
      return { result: x };
    },
    reference: ({ x, heads, epsilon }) => ({
      result: mapHeads(x, heads, (start, size) => plain({ x, start, size, epsilon })),
    }),
    gradient({ operands: { x, heads, epsilon }, gradients }, context) {
      context.add(x, () => {
        const gradient = gradients.result as RowNode;
        return gradientOperation.apply({ x: context.value(x), gradient, heads, epsilon }).result;
      });
    },
  });
}

function mapHeads(x: Rows, heads: number, ofHead: (start: number, size: number) => (i: number) => number): Rows {
  const out = zeros(x.rows, x.width, x.values);
  const size = x.width / heads;
  for (let start = 0; start < x.values.length; start += size) {
    const at = ofHead(start, size);
    for (let i = start; i < start + size; i++) out.values[i] = at(i);
  }
  return out;
}

/** The sum over a head's channels. */
function sumOver({ start, size }: Head, term: (i: number) => number): number {
  let sum = 0;
  for (let i = start; i < start + size; i++) sum += term(i);
  return sum;
}

/**
 * (x - mean) / sqrt(variance + epsilon) over each head: group normalization, arXiv 1803.08494, equation 1, a group a head,
 * without weight and bias, which elementwise functions add.
 */
export const headNorm = headOperation({
  name: "headNorm",
  plain({ x, start, size, epsilon }) {
    const { mean, scale } = momentsOf(x, start, size, epsilon);
    return (i) => ((x.values[i] as number) - mean) * scale;
  },
  // Mean and scale both depend on every channel of the head.
  gradient(head, gradient) {
    const { x, start, size, epsilon } = head;
    const { mean, scale } = momentsOf(x, start, size, epsilon);
    const normal = (i: number) => ((x.values[i] as number) - mean) * scale;
    const total = sumOver(head, (i) => gradient[i] as number);
    const product = sumOver(head, (i) => (gradient[i] as number) * normal(i));
    return (i) => scale * ((gradient[i] as number) - total / size - (normal(i) * product) / size);
  },
});

/**
 * x / max(|x|, epsilon) over each head, with |x| the Euclidean norm: what torch.nn.functional.normalize does (section 4 of arXiv
 * 2503.14456 has keys normalized so).
 */
export const headNormalize = headOperation({
  name: "headNormalize",
  plain(head) {
    const scale = 1 / Math.max(lengthOf(head), head.epsilon);
    return (i) => (head.x.values[i] as number) * scale;
  },
  // The part of the gradient along x changes the length of x alone, which the result does not depend on.
  gradient(head, gradient) {
    const { values } = head.x;
    const length = lengthOf(head);
    const scale = 1 / Math.max(length, head.epsilon);
    const along = sumOver(head, (i) => (gradient[i] as number) * (values[i] as number));
    // Below epsilon the factor does not depend on x.
    const share = length > head.epsilon ? along * scale * scale : 0;
    return (i) => scale * ((gradient[i] as number) - share * (values[i] as number));
  },
});

function lengthOf(head: Head): number {
  return Math.sqrt(sumOver(head, (i) => (head.x.values[i] as number) ** 2));
}
