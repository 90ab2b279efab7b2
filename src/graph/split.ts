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
  const partOf = new Map<Call, number>();
  for (const [part, root] of roots.entries()) {
    for (const { call } of topologicalOrder(root)) if (!partOf.has(call)) partOf.set(call, part);
  }
  const order = topologicalOrder(graph.output);
  const takes = roots.map(() => new Set<RowNode>());
  for (const call of partOf.keys()) {
    const part = partOf.get(call) as number;
    for (const input of inputsOf(call)) {
      if ((partOf.get(input.call) as number) < part && !input.call.operation.isLeaf) takes[part]?.add(input);
    }
  }
  return roots.map((_, part) => {
    const isOwn = ({ call }: RowNode) => partOf.get(call) === part;
    const laterTakes = takes.slice(part + 1).flatMap((nodes) => [...nodes]);
    return partWith(graph, order.filter(isOwn), [...(takes[part] ?? [])], [...new Set(laterTakes.filter(isOwn))]);
  });
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

/** The part of a graph with these nodes, each after its inputs. */
function partWith(graph: Graph, own: readonly RowNode[], takes: readonly RowNode[], gives: readonly RowNode[]): Part {
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
  const states = new Set(calls.flatMap(statesOf));
  const stateVectors = graph.stateVectors.filter((state) => states.has(state));
  const weights = new Set([
    ...calls.flatMap((call) => [...matricesOf(call), ...vectorsOf(call).map(weightOf)]),
    ...stateVectors.flatMap(({ initial }) => (typeof initial === "number" ? [] : [initial])),
  ]);
  return {
    graph: {
      output: nodes.findLast((node) => roots.includes(node)) as RowNode,
      weights: graph.weights.filter((weight) => weights.has(weight)),
      stateVectors,
      given: takes.map(copyOf),
      ...(!isLast && { handedOn }),
    },
    takes,
    gives,
  };
}
