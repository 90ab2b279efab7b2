// Linear attention: softmax replaced by a product of features, so that sums over the past can be carried along.
//
// Paper: Katharopoulos et al., "Transformers are RNNs", arXiv 2006.16236. With phi(x) = elu(x) + 1 (equation 7) the output is
// phi(q) . S / phi(q) . z, where S sums phi(k) v^T and z sums phi(k) (equations 18 to 20). Time grows as T, the state not at all.

import type { Graph, RowNode } from "../../graph/graph.js";
import { GraphBuilder } from "../../graph/graph-builder.js";
import { eluPlusOne } from "../../graph/operations/elementwise.js";
import { linearAttention as causalAttention } from "../operations/linear-attention.js";
import { addPosition } from "../operations/position.js";
import type { Architecture, ArchitectureSize } from "./architecture.js";
import { feedForward, linear, norm, withResidualLayers } from "./layers.js";

function build(size: ArchitectureSize): Graph {
  const g = new GraphBuilder();
  const { width, heads, capacity } = size;
  const attention = (name: string, x: RowNode): RowNode => {
    const query = eluPlusOne(linear(g, `${name}.query`, width, x));
    const key = eluPlusOne(linear(g, `${name}.key`, width, x));
    const value = linear(g, `${name}.value`, width, x);
    return linear(g, `${name}.output`, width, causalAttention(g, { query, key, value }, heads));
  };
  const embedded = g.embedding(g.matrix("emb.weight", size.vocabulary, width));
  const placed = addPosition(g, embedded, g.matrix("positions.weight", capacity, width));
  return withResidualLayers(g, size, placed, (name) => [
    (y) => attention(`${name}.att`, norm(g, `${name}.ln1`, y)),
    (y) => feedForward(g, `${name}.ffn`, size.hidden, norm(g, `${name}.ln2`, y)),
  ]);
}

export const linearAttention: Architecture = {
  name: "linear-attention",
  title: "Linear attention",
  paper: "arXiv 2006.16236",
  complexity: { time: "O(Td²)", space: "O(Td + d²)" },
  theory: { training: 1, token: 0, state: 0 },
  build,
};
