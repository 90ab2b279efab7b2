// Small graphs around the operations of other architectures that mix over time, for the tests of kernels and of gradients.

import type { RowNode } from "#rwkv/graph/graph";
import type { GraphBuilder } from "#rwkv/graph/graph-builder";

/** Puts an operation on rows of a width. */
export type Build = (g: GraphBuilder, x: RowNode, width: number) => RowNode;

/** A divisor of the width. */
const headsOf = (width: number) => (width % 5 === 0 ? 5 : width % 3 === 0 ? 3 : 1);

export const mixingGraphs: Record<string, Build> = {
  addPosition: (g, x, n) => g.addPosition(x, g.matrix("places", 5, n)),
  "aft, bias by position": (g, x, n) => {
    const key = g.matmul(g.matrix("key", n, n), x);
    return g.attentionFree(key, x, g.matrix("bias", 12, 12), 0);
  },
  "aft, bias by position in a window": (g, x, n) => {
    const key = g.matmul(g.matrix("key", n, n), x);
    return g.attentionFree(key, x, g.matrix("bias", 12, 3), 0);
  },
  "aft, bias by head in a window": (g, x, n) => {
    const key = g.matmul(g.matrix("key", n, n), x);
    return g.attentionFree(key, x, g.matrix("bias", headsOf(n), 2), headsOf(n));
  },
  elman: (g, x, n) => g.elman(x, g.matrix("recurrent", n, n)),
  gru: (g, x, n) => {
    const rows = (name: string) => g.matmul(g.matrix(name, n, n), x);
    const weights = [g.matrix("uz", n, n), g.matrix("ur", n, n), g.matrix("un", n, n)] as const;
    return g.gru(rows("wz"), rows("wr"), rows("wn"), weights);
  },
  attention: (g, x, n) => {
    const [query, key] = [g.matmul(g.matrix("query", n, n), x), g.matmul(g.matrix("key", n, n), x)];
    return g.attention(query, key, x, headsOf(n), 12);
  },
  linearAttention: (g, x, n) => {
    const feature = (name: string) => g.unary("eluPlusOne", g.matmul(g.matrix(name, n, n), x));
    return g.linearAttention(feature("query"), feature("key"), x, headsOf(n));
  },
};
