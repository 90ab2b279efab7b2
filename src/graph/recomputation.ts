// Gradient checkpointing (Chen et al., arXiv 1604.06174): values between checkpoints are recomputed when their gradients are
// needed.

import { type Call, inputsOf, type RowNode } from "./graph.js";
import { copyCall } from "./operation.js";

/**
 * Which node gives a value that a rule for a gradient needs. Values from the last checkpoint on are used as they are; those
 * before it are recomputed from the checkpoint before them, by nodes that are made when they are first needed, so that they
 * precede the gradients of their layer in the plan.
 */
export class Recomputation {
  readonly #kept: ReadonlySet<RowNode>;
  readonly #original: ReadonlySet<RowNode>;
  readonly #copies = new Map<Call, Call>();

  constructor(checkpoints: readonly RowNode[], output: RowNode) {
    this.#kept = new Set(checkpoints);
    this.#original = checkpoints.length > 0 ? between(output, this.#kept) : new Set();
  }

  valueOf(node: RowNode): RowNode {
    if (this.#kept.size === 0 || node.call.operation.isLeaf) return node;
    if (this.#kept.has(node) || this.#original.has(node)) return node;
    let copy = this.#copies.get(node.call);
    if (!copy) {
      copy = copyCall(node.call, (input) => this.valueOf(input));
      this.#copies.set(node.call, copy);
    }
    return copy.outputs[node.output] as RowNode;
  }
}

/** All nodes that lead to the output without passing a kept one. */
function between(output: RowNode, kept: ReadonlySet<RowNode>): Set<RowNode> {
  const found = new Set<RowNode>();
  const stack = [output];
  for (let node = stack.pop(); node; node = stack.pop()) {
    if (found.has(node) || kept.has(node)) continue;
    found.add(node);
    stack.push(...inputsOf(node.call));
  }
  return found;
}
