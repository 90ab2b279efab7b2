// What the architectures of the lab share, so that they differ in how they mix over time alone: linear maps, norms, the part that
// works on each token by itself, and residual layers between an embedding and a head.

import type { Graph, RowNode } from "../../graph/graph.js";
import type { GraphBuilder } from "../../graph/graph-builder.js";
import { add, reluSquared } from "../../graph/operations/elementwise.js";
import type { ArchitectureSize } from "./architecture.js";

const epsilon = 1e-5;

export function linear(g: GraphBuilder, name: string, outputs: number, x: RowNode): RowNode {
  return g.matmul(g.matrix(`${name}.weight`, outputs, x.width), x);
}

export function norm(g: GraphBuilder, name: string, x: RowNode): RowNode {
  return g.layerNorm(x, g.vector(`${name}.weight`, x.width), g.vector(`${name}.bias`, x.width), epsilon);
}

/** W_out relu(W_in x)^2 (squared ReLU: arXiv 2109.08668). */
export function feedForward(g: GraphBuilder, name: string, hidden: number, x: RowNode): RowNode {
  return linear(g, `${name}.value`, x.width, reluSquared(linear(g, `${name}.key`, hidden, x)));
}

/** Parts of a layer, each of which is added to what it is given. */
type Parts = readonly ((x: RowNode) => RowNode)[];

/** x plus each part of each layer, then the last norm and the head. */
export function withResidualLayers(
  g: GraphBuilder,
  { layers, vocabulary }: ArchitectureSize,
  first: RowNode,
  parts: (layer: string) => Parts,
): Graph {
  let x = norm(g, "ln0", first);
  for (let i = 0; i < layers; i++) {
    x = g.checkpoint(x);
    for (const part of parts(`blocks.${i}`)) x = add(x, part(x));
  }
  return g.finish(linear(g, "head", vocabulary, norm(g, "ln_out", g.selectRows(x))));
}
