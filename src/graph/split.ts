// Cuts a graph between layers, into parts that several backends carry out one after another. Between them go the rows that later layers
// need of earlier ones, whatever they are: always the residual stream, and in some versions values of the first layer.

import {
  type Call,
  callsOf,
  type Graph,
  type GraphPart,
  inputsOf,
  matricesOf,
  type RowNode,
  statesOf,
  topologicalOrder,
  vectorsOf,
  type WeightNode,
  weightOf,
} from "./graph.js";
import { copyCall } from "./operation.js";
import { given } from "./operations/given.js";

/** Some layers of a graph. */
export interface Part {
  readonly graph: GraphPart;
  /** The values of the whole graph that it is given, in the order of `graph.given`. */
  readonly takes: readonly RowNode[];
  /** And those that it hands on, in the order of `graph.handedOn`. */
  readonly gives: readonly RowNode[];
}

/**
 * @param layers how many layers each part but the last has
 * @throws RangeError where that leaves no layer for one of them
 */
export function splitGraph(graph: Graph, layers: readonly number[]): Part[] {
  const roots = [...seamsOf(graph, layers), graph.output];
  // What the first root needs comes first, up to the root itself; then what the second needs beside it, and so on.
  const partOf = new Map<Call, number>();
  let reached = 0;
  for (const node of topologicalOrder(...roots)) {
    if (!partOf.has(node.call)) partOf.set(node.call, reached);
    if (node === roots[reached]) reached++;
  }
  const owned: RowNode[][] = roots.map(() => []);
  for (const node of topologicalOrder(graph.output)) owned[partOf.get(node.call) as number]?.push(node);
  const takes = roots.map(() => new Set<RowNode>());
  for (const call of partOf.keys()) {
    const part = partOf.get(call) as number;
    for (const input of inputsOf(call)) {
      if ((partOf.get(input.call) as number) < part && !input.call.operation.isLeaf) takes[part]?.add(input);
    }
  }
  const gives = roots.map(() => new Set<RowNode>());
  for (const nodes of takes) for (const node of nodes) gives[partOf.get(node.call) as number]?.add(node);
  const places = new Map(graph.weights.map((weight, place) => [weight, place]));
  return owned.map((nodes, part) => partWith(graph, nodes, [...(takes[part] ?? [])], [...(gives[part] ?? [])], places));
}

/** What each part begins with but the first: what a layer is given by the one before. */
function seamsOf({ checkpoints }: Graph, layers: readonly number[]): RowNode[] {
  let next = 0;
  return layers.map((count) => {
    next += count;
    const seam = checkpoints[next];
    if (!(Number.isInteger(count) && count > 0) || !seam) {
      throw new RangeError(`a graph of ${checkpoints.length} layers has no parts of ${layers.join(", ")} and more`);
    }
    return seam;
  });
}

/**
 * The part of a graph with these nodes, each after its inputs.
 *
 * @param places of the graph's weights among each other
 */
function partWith(
  graph: Graph,
  own: readonly RowNode[],
  takes: readonly RowNode[],
  gives: readonly RowNode[],
  places: ReadonlyMap<WeightNode, number>,
): Part {
  const copies = new Map<RowNode, RowNode>();
  for (const [number, { width }] of takes.entries()) {
    copies.set(takes[number] as RowNode, given.apply({ number, width }).result);
  }
  // Leaves take no work, so they are all parts' alike.
  const copyOf = (node: RowNode) => copies.get(node) ?? node;
  for (const call of callsOf(own)) {
    const copy = copyCall(call, copyOf);
    for (const [i, output] of call.outputs.entries()) copies.set(output, copy.outputs[i] as RowNode);
  }
  const handedOn = gives.map(copyOf);
  const isLast = gives.length === 0;
  const roots = isLast ? [copyOf(graph.output)] : handedOn;
  const nodes = topologicalOrder(...roots);
  const calls = callsOf(nodes);
  const stateVectors = [...new Set(calls.flatMap(statesOf))].sort((a, b) => a.index - b.index);
  const weights = new Set([
    ...calls.flatMap((call) => [...matricesOf(call), ...vectorsOf(call).map(weightOf)]),
    ...stateVectors.flatMap(({ initial }) => (typeof initial === "number" ? [] : [initial])),
  ]);
  return {
    graph: {
      output: nodes.findLast((node) => roots.includes(node)) as RowNode,
      weights: [...weights].sort((a, b) => (places.get(a) as number) - (places.get(b) as number)),
      stateVectors,
      given: takes.map(copyOf),
      ...(!isLast && { handedOn }),
    },
    takes,
    gives,
  };
}
