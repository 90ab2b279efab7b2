// Gradient checkpointing (Chen et al., arXiv 1604.06174): values between checkpoints are computed again when their gradients are due.

import { type ForwardNode, inputsOf, type RowNode } from "./graph.js";
import { copyNode, newGroups } from "./rewrite.js";

/**
 * Gradient checkpointing: which node gives a value that a rule needs. Values from the last checkpoint on are used as they are; those
 * before it are computed again from the checkpoint before them, by nodes made when they are first asked for, so that they
 * come in the plan right before the gradients of their layer.
 */
export class Recomputation {
  readonly #kept: ReadonlySet<RowNode>;
  readonly #original: ReadonlySet<RowNode>;
  readonly #copies = new Map<RowNode, RowNode>();
  readonly #group = newGroups();
  readonly #any: boolean;

  constructor(checkpoints: readonly RowNode[], output: RowNode) {
    this.#any = checkpoints.length > 0;
    this.#kept = new Set(checkpoints);
    this.#original = this.#any ? between(output, this.#kept) : new Set();
  }

  valueOf(node: RowNode): RowNode {
    if (!this.#any || this.#kept.has(node) || this.#original.has(node)) return node;
    let copy = this.#copies.get(node);
    if (!copy) {
      copy = copyNode(node as ForwardNode, (input) => this.valueOf(input), this.#group);
      this.#copies.set(node, copy);
    }
    return copy;
  }
}

/** All nodes that lead to the output without passing a kept one. */
function between(output: RowNode, kept: ReadonlySet<RowNode>): Set<RowNode> {
  const found = new Set<RowNode>();
  const stack = [output];
  for (let node = stack.pop(); node; node = stack.pop()) {
    if (found.has(node) || kept.has(node)) continue;
    found.add(node);
    stack.push(...inputsOf(node));
  }
  return found;
}
