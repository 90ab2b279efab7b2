// What each matrix of a graph is used for, on which hang the types that it can have and how often it is read.

import {
  callsOf,
  type GraphPart,
  type MatrixUse,
  matricesOf,
  rootsOf,
  topologicalOrder,
  type WeightNode,
} from "../graph/graph.js";
import { matmul } from "../graph/operations/matmul.js";

/** The matrices of a graph by what they are used for. */
export interface MatrixUses {
  /** Of which rows are taken: embeddings. A table is one although it may be multiplied by, too. */
  readonly tables: ReadonlySet<WeightNode>;
  /** Of recurrences, whose kernels take float32. */
  readonly recurrent: ReadonlySet<WeightNode>;
  /** That rows are multiplied by, without the head. */
  readonly products: ReadonlySet<WeightNode>;
  /** Of the products, those whose rows are mostly zeros in trained models: what squared ReLU gives. */
  readonly sparse: ReadonlySet<WeightNode>;
  /** Which gives the logits, of selected rows only. */
  readonly head: WeightNode | undefined;
}

/** Reads what descriptors say of the matrices that they take. */
export function matrixUses(graph: GraphPart): MatrixUses {
  const sets: Readonly<Record<MatrixUse, Set<WeightNode>>> = {
    table: new Set(),
    float32: new Set(),
    product: new Set(),
  };
  const head = matmul.operandsOf(graph.output.call)?.weight;
  for (const call of callsOf(topologicalOrder(...rootsOf(graph)))) {
    const uses = Object.values(call.operation.matrices);
    matricesOf(call).forEach((weight, i) => void sets[uses[i] as MatrixUse].add(weight));
  }
  if (head) sets.product.delete(head);
  const sparse = sparseOf(graph, sets.product);
  return { tables: sets.table, recurrent: sets.float32, products: sets.product, sparse, head };
}

/** The products that only rows of squared ReLU are multiplied by. */
function sparseOf(graph: GraphPart, products: ReadonlySet<WeightNode>): Set<WeightNode> {
  const sparse = new Set<WeightNode>();
  const others = new Set<WeightNode>();
  for (const call of callsOf(topologicalOrder(...rootsOf(graph)))) {
    const rows = matmul.operandsOf(call)?.x.call.operation.elementwise;
    for (const weight of matricesOf(call)) (rows === "reluSquared" ? sparse : others).add(weight);
  }
  return new Set([...sparse].filter((weight) => products.has(weight) && !others.has(weight)));
}
