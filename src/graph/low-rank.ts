// Low-rank products beside the matrices of a graph: W x becomes W x + scale * B (A x) (LoRA; Hu et al., arXiv 2106.09685, section 4.1).

import type { Graph, WeightNode } from "./graph.js";
import { add, multiply } from "./operations/elementwise.js";
import { constant } from "./operations/leaves.js";
import { matmul } from "./operations/matmul.js";
import { rewriteGraph } from "./rewrite.js";

/** What is added to the product with a matrix [outputs, inputs]. */
export interface LowRankProduct {
  /** A: [rank, inputs] */
  readonly down: WeightNode;
  /** B: [outputs, rank] */
  readonly up: WeightNode;
  readonly scale: number;
}

/**
 * A copy of a graph with products beside those with its matrices. The weights of the products come behind the graph's.
 *
 * @param productOf what is added beside a matrix; it is asked once for each product with the matrix
 */
export function withLowRankProducts(
  graph: Graph,
  productOf: (weight: WeightNode) => LowRankProduct | undefined,
): Graph {
  const added = new Set<WeightNode>();
  const adapted = rewriteGraph(graph, (copy) => {
    const product = matmul.operandsOf(copy.call);
    const beside = product && productOf(product.weight);
    if (!beside) return copy;
    const { down, up, scale } = beside;
    added.add(down).add(up);
    const inner = matmul.apply({ weight: down, x: product.x }).result;
    const outer = matmul.apply({ weight: up, x: inner }).result;
    return add(copy, scale === 1 ? outer : multiply(outer, constant(scale)));
  });
  return { ...adapted, weights: [...graph.weights, ...added] };
}
