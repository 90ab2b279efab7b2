// The Attention Free Transformer in its four causal forms: attention's matrix of weights gives way to products element by element
// and a learned bias for positions.
//
// Paper: Zhai et al., arXiv 2105.14103. Y[t] = sigmoid(Q[t]) * sum over s <= t of e^(K[s] + w[t][s]) V[s], over the sum of the
// weights (equation 2); AFT-simple has no bias, AFT-local biases within a window (section 3.3), AFT-conv biases by head and
// distance within a window (section 3.4). There is no product of queries and keys: a token weighs what its own key says, for
// every later one.

import type { Graph, RowNode } from "../../graph/graph.js";
import { GraphBuilder } from "../../graph/graph-builder.js";
import { multiply, sigmoid } from "../../graph/operations/elementwise.js";
import { attentionFree } from "../operations/attention-free.js";
import type { Architecture, ArchitectureSize, Growth } from "./architecture.js";
import { feedForward, linear, norm, withResidualLayers } from "./layers.js";

/** Tokens that AFT-local and AFT-conv have biases for. */
const window = 32;

/** The shape of the biases: rows, window, and whether rows are heads. */
type Biases = (size: ArchitectureSize) => { readonly rows: number; readonly window: number; readonly heads: number };

function build(size: ArchitectureSize, biases: Biases): Graph {
  const g = new GraphBuilder();
  const { width, vocabulary, hidden } = size;
  const { rows, window: near, heads } = biases(size);
  const average = (name: string, x: RowNode): RowNode => {
    const query = sigmoid(linear(g, `${name}.query`, width, x));
    const [key, value] = [linear(g, `${name}.key`, width, x), linear(g, `${name}.value`, width, x)];
    const bias = g.matrix(`${name}.bias.weight`, rows, near);
    return linear(g, `${name}.output`, width, multiply(query, attentionFree(g, { key, value }, bias, heads)));
  };
  return withResidualLayers(g, size, g.embedding(g.matrix("emb.weight", vocabulary, width)), (name) => [
    (y) => average(`${name}.aft`, norm(g, `${name}.ln1`, y)),
    (y) => feedForward(g, `${name}.ffn`, hidden, norm(g, `${name}.ln2`, y)),
  ]);
}

function variant(form: string, time: string, theory: Growth, biases: Biases): Architecture {
  return {
    name: `aft-${form}`,
    title: `AFT-${form}`,
    paper: "arXiv 2105.14103",
    complexity: { time, space: "O(Td)" },
    theory,
    build: (size) => build(size, biases),
  };
}

/** A bias for every pair of positions: every token is kept, and taken anew for each later one. */
export const aftFull: Architecture = variant("full", "O(T²d)", { training: 2, token: 1, state: 1 }, ({ capacity }) => {
  return { rows: capacity, window: capacity, heads: 0 };
});

/** A bias within the window, by position. Sums stand for what is before it. */
export const aftLocal: Architecture = variant(
  "local",
  "O(Tsd)",
  { training: 1, token: 0, state: 0 },
  ({ capacity }) => {
    return { rows: capacity, window: Math.min(window, capacity), heads: 0 };
  },
);

/** A bias by head and distance within the window. */
export const aftConv: Architecture = variant(
  "conv",
  "O(Tsd)",
  { training: 1, token: 0, state: 0 },
  ({ heads, capacity }) => {
    return { rows: heads, window: Math.min(window, capacity), heads };
  },
);

/**
 * No bias: two sums for each channel. The token's own bias is here a learned constant of each head, where the paper has 0; it
 * leaves what the form can do as it is, and the sums alone are the state.
 */
export const aftSimple: Architecture = variant("simple", "O(Td)", { training: 1, token: 0, state: 0 }, ({ heads }) => {
  return { rows: heads, window: 1, heads };
});
