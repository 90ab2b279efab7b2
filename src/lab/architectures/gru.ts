// The gated recurrent unit: a recurrent network whose gates decide what of the state is kept and what is looked at.
//
// Cho et al., arXiv 1406.1078, equations 5 to 8: z = sigmoid(Wz x + Uz h'), r = sigmoid(Wr x + Ur h'),
// n = tanh(W x + U (r h')), h = z h' + (1 - z) n, with h' the state before. Time grows as T, the state not at all.

import type { Graph } from "../../graph/graph.js";
import { GraphBuilder } from "../../graph/graph-builder.js";
import { gru as gruStates } from "../operations/gru.js";
import type { Architecture, ArchitectureSize } from "./architecture.js";
import { feedForward, linear, norm, withResidualLayers } from "./layers.js";

function build(size: ArchitectureSize): Graph {
  const g = new GraphBuilder();
  const { width, vocabulary, hidden } = size;
  return withResidualLayers(g, size, g.embedding(g.matrix("emb.weight", vocabulary, width)), (name) => [
    (y) => {
      const x = norm(g, `${name}.ln1`, y);
      const rows = (gate: string) => linear(g, `${name}.gru.${gate}`, width, x);
      const recurrent = (gate: string) => g.matrix(`${name}.gru.recurrent_${gate}.weight`, width, width);
      const h = gruStates(g, {
        update: rows("update"),
        reset: rows("reset"),
        candidate: rows("candidate"),
        updateWeight: recurrent("update"),
        resetWeight: recurrent("reset"),
        candidateWeight: recurrent("candidate"),
      });
      return linear(g, `${name}.gru.output`, width, h);
    },
    (y) => feedForward(g, `${name}.ffn`, hidden, norm(g, `${name}.ln2`, y)),
  ]);
}

export const gru: Architecture = {
  name: "gru",
  title: "GRU",
  paper: "arXiv 1406.1078",
  complexity: { time: "O(Td²)", space: "O(d)" },
  theory: { training: 1, token: 0, state: 0 },
  build,
};
