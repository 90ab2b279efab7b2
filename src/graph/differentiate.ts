// Builds the gradient of a loss out of graph operations: walks the graph back from the logits, and for each call adds the nodes
// of its operation's rule. Nothing is computed here; the result is planned and executed like any graph.
//
// Reverse accumulation: Griewank and Walther, "Evaluating Derivatives", 2nd edition, chapter 3.

import {
  type Call,
  callsOf,
  type GradientContext,
  type Graph,
  inputsOf,
  matricesOf,
  type RowNode,
  type Shape,
  type StateVector,
  statesOf,
  topologicalOrder,
  type Vector,
  vectorsOf,
  type WeightNode,
  weightOf,
} from "./graph.js";
import { byName, outputsByName } from "./operation.js";
import { crossEntropy } from "./operations/cross-entropy.js";
import { add, unaryGradient } from "./operations/elementwise.js";
import { headSum } from "./operations/heads.js";
import { vectorRow } from "./operations/leaves.js";
import { columnSums } from "./operations/sums.js";
import { Recomputation } from "./recomputation.js";
import { withoutDropout } from "./rewrite.js";

/** A graph with its loss and the gradients of what is to be learned. */
export interface TrainingGraph {
  /** A column: the loss of each selected row. Training minimises their mean. */
  readonly loss: RowNode;
  /** Matrices as [outputs, inputs], vectors as one row; in the order in which they can be computed. */
  readonly weights: ReadonlyMap<WeightNode, RowNode>;
  /** The gradients of the states that sequences begin with, summed over sequences; one row each. */
  readonly states: ReadonlyMap<StateVector, RowNode>;
}

export interface DifferentiateOptions {
  /** What is to be learned. */
  readonly weights: ReadonlySet<WeightNode>;
  readonly states?: ReadonlySet<StateVector>;
  /** The weight of the penalty on the largest logit of each row. */
  readonly logitPenalty: number;
  /** Whether values between checkpoints are recomputed rather than kept: less memory, a third more time. */
  readonly checkpointing?: boolean;
}

/** The loss of each selected row alone, with nothing dropped out: what evaluation needs. */
export function lossOf(graph: Graph): RowNode {
  return crossEntropy.apply({ logits: withoutDropout(graph).output, logitPenalty: 0 }).loss;
}

/**
 * The gradients of the mean cross-entropy of a graph's selected rows.
 *
 * @throws RangeError when what is to be learned flows through an operation that has no gradient
 */
export function differentiate(graph: Graph, options: DifferentiateOptions): TrainingGraph {
  return new Differentiation(graph, options).run();
}

class Differentiation implements GradientContext {
  readonly #graph: Graph;
  readonly #options: DifferentiateOptions;
  /** The values that anything to be learned flows into. */
  readonly #requiresGradient = new Set<RowNode>();
  readonly #gradients = new Map<RowNode, RowNode>();
  readonly #weights = new Map<WeightNode, RowNode>();
  readonly #states = new Map<StateVector, RowNode>();
  readonly #recomputation: Recomputation;

  constructor(graph: Graph, options: DifferentiateOptions) {
    this.#graph = graph;
    this.#options = options;
    this.#recomputation = new Recomputation(options.checkpointing ? graph.checkpoints : [], graph.output);
  }

  run(): TrainingGraph {
    const { output: logits } = this.#graph;
    const order = topologicalOrder(logits);
    for (const node of order) {
      const { call } = node;
      if (this.#isLearnedFrom(call) || inputsOf(call).some((input) => this.#requiresGradient.has(input)))
        this.#requiresGradient.add(node);
    }
    const { loss, gradient } = crossEntropy.apply({ logits, logitPenalty: this.#options.logitPenalty });
    this.#gradients.set(logits, gradient);
    // A call's turn comes at the first of its outputs, when all of them have their gradients.
    for (const call of callsOf(order).toReversed()) this.#differentiate(call);
    return { loss, weights: this.#weights, states: this.#states };
  }

  #differentiate(call: Call): void {
    const gradients = call.outputs.map((node) =>
      this.#requiresGradient.has(node) ? this.#gradients.get(node) : undefined,
    );
    if (gradients.every((gradient) => gradient === undefined)) return;
    const { operation, operands } = call;
    const rule = operation.gradient;
    if (typeof rule !== "function") throw new RangeError(`${operation.name} has no gradient: ${rule.none}`);
    const named = { operands, outputs: outputsByName(call), gradients: byName(operation.outputs, gradients) };
    rule(named as never, this);
  }

  #isLearnedFrom(call: Call): boolean {
    const { weights, states } = this.#options;
    return (
      matricesOf(call).some((weight) => weights.has(weight)) ||
      vectorsOf(call).some((vector) => weights.has(weightOf(vector))) ||
      statesOf(call).some((state) => states?.has(state))
    );
  }

  value(node: RowNode): RowNode {
    return this.#recomputation.valueOf(node);
  }

  add(input: RowNode, make: () => RowNode): void {
    if (this.#requiresGradient.has(input)) accumulate(this.#gradients, input, summedTo(input, make()));
  }

  addMatrix(weight: WeightNode, make: () => RowNode): void {
    if (this.#options.weights.has(weight)) accumulate(this.#weights, weight, make());
  }

  /** The gradient of a function of a vector flows through the function to the vector. */
  addVector(vector: Vector, make: () => RowNode): void {
    if (!this.#options.weights.has(weightOf(vector))) return;
    let gradient = make();
    let at = vector;
    while (at.op === "vectorFunction") {
      gradient = unaryGradient(at.function, vectorRow(at.x), vectorRow(at), gradient);
      at = at.x;
    }
    accumulate(this.#weights, at, gradient);
  }

  addState(state: StateVector, make: () => RowNode): void {
    if (this.#options.states?.has(state)) accumulate(this.#states, state, make());
  }
}

/** A gradient summed over all that an operand of an elementwise function stands for. */
function summedTo(operand: Shape, gradient: RowNode): RowNode {
  const row = operand.rows === 1 && gradient.rows !== 1 ? columnSums.apply({ x: gradient }).result : gradient;
  return operand.width < row.width ? headSum.apply({ x: row, heads: operand.width }).result : row;
}

function accumulate<Key>(gradients: Map<Key, RowNode>, key: Key, more: RowNode): void {
  const before = gradients.get(key);
  gradients.set(key, before ? add(before, more) : more);
}
