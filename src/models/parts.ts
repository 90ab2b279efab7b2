// Parts of layers that several versions have alike.

import type { RowNode, Vector } from "../graph/graph.js";
import type { GraphBuilder, MatrixOptions } from "../graph/graph-builder.js";
import { add, multiply, reluSquared, sigmoid } from "../graph/operations/elementwise.js";
import { vectorRow } from "../graph/operations/leaves.js";

/** The product with the matrix `<name>.weight` [outputs, inputs]. */
export function linear(g: GraphBuilder, name: string, outputs: number, x: RowNode, options?: MatrixOptions): RowNode {
  return g.matmul(g.matrix(`${name}.weight`, outputs, x.width, options), x);
}

/** Layer normalization with the vectors `<name>.weight` and `<name>.bias`. */
export function layerNorm(g: GraphBuilder, name: string, x: RowNode, epsilon: number): RowNode {
  return g.layerNorm(x, g.vector(`${name}.weight`, x.width), g.vector(`${name}.bias`, x.width), epsilon);
}

/** Group normalization, a group a head, with the vectors `<name>.weight` and `<name>.bias`. */
export function groupNorm(g: GraphBuilder, name: string, x: RowNode, heads: number, epsilon: number): RowNode {
  const of = (part: string): RowNode => vectorRow(g.vector(`${name}.${part}`, x.width));
  return add(multiply(g.headNorm(x, heads, epsilon), of("weight")), of("bias"));
}

/** x * sigmoid(x), arXiv 1606.08415. */
export function silu(x: RowNode): RowNode {
  return multiply(x, sigmoid(x));
}

/**
 * The channel mixing of RWKV-4 to 6 (arXiv 2305.13048v2, section 3.1.3, equation 18), of rows that token shift has mixed:
 * sigmoid(Wr xr) * Wv relu(Wk xk)².
 */
export function gatedChannelMixing(g: GraphBuilder, name: string, hidden: number, xk: RowNode, xr: RowNode): RowNode {
  const r = sigmoid(linear(g, `${name}.receptance`, xr.width, xr));
  const k = reluSquared(linear(g, `${name}.key`, hidden, xk));
  return multiply(r, linear(g, `${name}.value`, xk.width, k));
}

/** A function of a vector weight that is exp(-exp(x)): between 0 and 1 whatever is learned. */
export function decayOf(g: GraphBuilder, x: Vector): Vector {
  return g.vectorFunction("exp", g.vectorFunction("negate", g.vectorFunction("exp", x)));
}
