// The recurrent network: what a token leaves behind is all that the next one sees.
//
// Elman, "Finding Structure in Time", Cognitive Science 14, 1990: h[t] = tanh(W x[t] + U h[t-1]). Each step needs the one before,
// so training walks token by token; time grows as T, the state not at all.

import type { Graph } from "../../graph/graph.js";
import { GraphBuilder } from "../../graph/graph-builder.js";
import { elman } from "../operations/elman.js";
import type { Architecture, ArchitectureSize } from "./architecture.js";
import { feedForward, linear, norm, withResidualLayers } from "./layers.js";

function build(size: ArchitectureSize): Graph {
  const g = new GraphBuilder();
  const { width, vocabulary, hidden } = size;
  return withResidualLayers(g, size, g.embedding(g.matrix("emb.weight", vocabulary, width)), (name) => [
    (y) => {
      const x = linear(g, `${name}.rnn.input`, width, norm(g, `${name}.ln1`, y));
      const h = elman(g, x, g.matrix(`${name}.rnn.recurrent.weight`, width, width));
      return linear(g, `${name}.rnn.output`, width, h);
    },
    (y) => feedForward(g, `${name}.ffn`, hidden, norm(g, `${name}.ln2`, y)),
  ]);
}

export const rnn: Architecture = {
  name: "rnn",
  title: "RNN (Elman)",
  paper: "Elman 1990",
  complexity: { time: "O(Td²)", space: "O(d)" },
  theory: { training: 1, token: 0, state: 0 },
  build,
};
