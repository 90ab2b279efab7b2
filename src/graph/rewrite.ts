// Copies nodes of a graph with other inputs: to compute values again, to put something in a node's place, to leave something out.

import { type ForwardNode, type Graph, type RowNode, topologicalOrder } from "./graph.js";

/**
 * A copy of a node.
 *
 * @param input what stands for each of its inputs
 * @param group the copy's group, for nodes that are one of several
 */
export function copyNode(
  node: ForwardNode,
  input: (node: RowNode) => RowNode,
  group: (group: symbol) => symbol,
): ForwardNode {
  switch (node.op) {
    case "embedding":
    case "vectorRow":
      return { ...node };
    case "wkv":
      return { ...node, key: input(node.key), value: input(node.value) };
    case "aft":
      return { ...node, key: input(node.key), value: input(node.value) };
    case "gru": {
      const [update, reset, candidate] = [input(node.update), input(node.reset), input(node.candidate)];
      return { ...node, update, reset, candidate, group: group(node.group) };
    }
    case "attention":
    case "linearAttention":
      return { ...node, query: input(node.query), key: input(node.key), value: input(node.value) };
    case "binary":
      return { ...node, a: input(node.a), b: input(node.b) };
    case "tokenShift":
      return { ...node, x: input(node.x), group: group(node.group) };
    default:
      return { ...node, x: input(node.x) };
  }
}

/** Gives each old group a new one. */
export function newGroups(): (group: symbol) => symbol {
  const groups = new Map<symbol, symbol>();
  return (group) => {
    const copy = groups.get(group) ?? Symbol(group.description);
    groups.set(group, copy);
    return copy;
  };
}

/**
 * A copy of a graph over the same weights and states.
 *
 * @param replace what stands for each node; it is given the node's copy, whose inputs have been replaced already
 */
export function rewriteGraph(graph: Graph, replace: (copy: ForwardNode) => RowNode): Graph {
  const copies = new Map<RowNode, RowNode>();
  const of = (node: RowNode) => copies.get(node) as RowNode;
  const group = newGroups();
  for (const node of topologicalOrder(graph.output) as ForwardNode[]) {
    copies.set(node, replace(copyNode(node, of, group)));
  }
  return { ...graph, output: of(graph.output), checkpoints: graph.checkpoints.map(of) };
}

/** The graph as it is used after training: nothing is dropped out. */
export function withoutDropout(graph: Graph): Graph {
  return rewriteGraph(graph, (copy) => (copy.op === "dropout" ? copy.x : copy));
}
