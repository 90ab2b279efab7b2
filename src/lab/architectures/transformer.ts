// The Transformer: causal multi-head attention, with a cache of keys and values for generation.
//
// Paper: Vaswani et al., "Attention Is All You Need", arXiv 1706.03762. Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V (equation
// 1), in heads (section 3.2.2), each token over itself and those before it; learned positions (section 3.5). Norms stand before
// each part, as in GPT-2. Every token looks at every earlier one: time T^2 for a text, T for its last token, and a cache that
// grows by T.

import type { Graph, RowNode } from "../../graph/graph.js";
import { GraphBuilder } from "../../graph/graph-builder.js";
import { attention as softmaxAttention } from "../operations/attention.js";
import { addPosition } from "../operations/position.js";
import type { Architecture, ArchitectureSize } from "./architecture.js";
import { feedForward, linear, norm, withResidualLayers } from "./layers.js";

function build(size: ArchitectureSize): Graph {
  const g = new GraphBuilder();
  const { width, heads, capacity } = size;
  const attention = (name: string, x: RowNode): RowNode => {
    const query = linear(g, `${name}.query`, width, x);
    const key = linear(g, `${name}.key`, width, x);
    const value = linear(g, `${name}.value`, width, x);
    return linear(g, `${name}.output`, width, softmaxAttention(g, { query, key, value }, heads, capacity));
  };
  const embedded = g.embedding(g.matrix("emb.weight", size.vocabulary, width));
  const placed = addPosition(g, embedded, g.matrix("positions.weight", capacity, width));
  return withResidualLayers(g, size, placed, (name) => [
    (y) => attention(`${name}.att`, norm(g, `${name}.ln1`, y)),
    (y) => feedForward(g, `${name}.ffn`, size.hidden, norm(g, `${name}.ln2`, y)),
  ]);
}

export const transformer: Architecture = {
  name: "transformer",
  title: "Transformer",
  paper: "arXiv 1706.03762",
  complexity: { time: "O(T²d)", space: "O(T² + Td)" },
  theory: { training: 2, token: 1, state: 1 },
  build,
};
