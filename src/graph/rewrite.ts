// Copies a graph with something else in the place of some of its nodes.

import { type Call, type Graph, type RowNode, topologicalOrder } from "./graph.js";
import { copyCall } from "./operation.js";
import { dropout } from "./operations/dropout.js";

/**
 * A copy of a graph over the same weights and states.
 *
 * @param replace what stands for each node; it is given the node's copy, whose inputs have been replaced already
 */
export function rewriteGraph(graph: Graph, replace: (copy: RowNode) => RowNode): Graph {
  const nodes = new Map<RowNode, RowNode>();
  const calls = new Map<Call, Call>();
  const of = (node: RowNode) => nodes.get(node) as RowNode;
  for (const node of topologicalOrder(graph.output)) {
    const call = calls.get(node.call) ?? copyCall(node.call, of);
    calls.set(node.call, call);
    nodes.set(node, replace(call.outputs[node.output] as RowNode));
  }
  return { ...graph, output: of(graph.output), checkpoints: graph.checkpoints.map(of) };
}

/** The graph as it is used after training: nothing is dropped out. */
export function withoutDropout(graph: Graph): Graph {
  return rewriteGraph(graph, (copy) => dropout.operandsOf(copy.call)?.x ?? copy);
}
