// Builds the gradient of a loss out of graph operations: walks the graph back from the logits, and for each operation adds the nodes
// of its rule. Nothing is computed here; the result is planned and executed like any graph.
//
// Reverse accumulation: Griewank and Walther, "Evaluating Derivatives", 2nd edition, chapter 3.

import { wkvTotals } from "./gradient-nodes.js";
import {
  binary,
  type ForwardNode,
  type Graph,
  inputsOf,
  type RowNode,
  type StateVector,
  topologicalOrder,
  unary,
  type Vector,
  type WeightNode,
} from "./graph.js";
import { Recomputation } from "./recomputation.js";
import { withoutDropout } from "./rewrite.js";

/** A graph with its loss and the gradients of what is to be learned. */
export interface TrainingGraph {
  /** A column: the loss of each selected row. Training minimises their mean. */
  readonly loss: RowNode;
  /** Matrices as [outputs, inputs], vectors as one row; in the order in which they can be computed. */
  readonly weights: ReadonlyMap<WeightNode, RowNode>;
  /** Of the states that sequences begin with, summed over sequences; one row each. */
  readonly states: ReadonlyMap<StateVector, RowNode>;
}

export interface DifferentiateOptions {
  /** What is to be learned. */
  readonly weights: ReadonlySet<WeightNode>;
  readonly states?: ReadonlySet<StateVector>;
  /** What the largest logit of each row is pulled down by. */
  readonly logitPenalty: number;
  /** Whether values between checkpoints are computed again rather than kept: less memory, a third more time. */
  readonly checkpointing?: boolean;
}

/** The loss of each selected row alone, with nothing dropped out: what evaluation needs. */
export function lossOf(graph: Graph): RowNode {
  return crossEntropy(withoutDropout(graph), 0, Symbol("crossEntropy"), "loss");
}

/** The gradients of the mean cross-entropy of a graph's selected rows. */
export function differentiate(graph: Graph, options: DifferentiateOptions): TrainingGraph {
  return new Differentiation(graph, options).run();
}

function crossEntropy(graph: Graph, logitPenalty: number, group: symbol, output: "loss" | "gradient"): RowNode {
  const { output: logits } = graph;
  const width = output === "loss" ? 1 : logits.width;
  return { op: "crossEntropy", logits, logitPenalty, group, output, rows: logits.rows, width };
}

type NodeOf<Op extends ForwardNode["op"]> = Extract<ForwardNode, { op: Op }>;

class Differentiation {
  readonly #graph: Graph;
  readonly #options: DifferentiateOptions;
  /** Whether anything to be learned flows into a value. */
  readonly #concerned = new Set<RowNode>();
  readonly #gradients = new Map<RowNode, RowNode>();
  readonly #weights = new Map<WeightNode, RowNode>();
  readonly #states = new Map<StateVector, RowNode>();
  readonly #again: Recomputation;

  constructor(graph: Graph, options: DifferentiateOptions) {
    this.#graph = graph;
    this.#options = options;
    this.#again = new Recomputation(options.checkpointing ? graph.checkpoints : [], graph.output);
  }

  run(): TrainingGraph {
    const order = topologicalOrder(this.#graph.output) as ForwardNode[];
    for (const node of order) {
      if (this.#learns(node) || inputsOf(node).some((input) => this.#concerned.has(input))) this.#concerned.add(node);
    }
    const group = Symbol("crossEntropy");
    const loss = crossEntropy(this.#graph, this.#options.logitPenalty, group, "loss");
    this.#gradients.set(this.#graph.output, crossEntropy(this.#graph, this.#options.logitPenalty, group, "gradient"));
    const shifts = new Map<symbol, NodeOf<"tokenShift">[]>();
    for (const node of order) {
      if (node.op === "tokenShift") shifts.set(node.group, [...(shifts.get(node.group) ?? []), node]);
    }
    for (const node of order.toReversed()) {
      if (!this.#concerned.has(node)) continue;
      const gradient = this.#gradients.get(node);
      if (node.op === "tokenShift") {
        // At the first of the group all have their gradients.
        const group = shifts.get(node.group) as NodeOf<"tokenShift">[];
        if (group[0] === node) this.#tokenShift(node, group);
      } else if (gradient) this.#propagate(node, gradient);
    }
    return { loss, weights: this.#weights, states: this.#states };
  }

  /** The rules, one an operation. */
  #propagate(node: Exclude<ForwardNode, NodeOf<"tokenShift">>, gradient: RowNode): void {
    const value = (input: RowNode) => this.#again.valueOf(input);
    switch (node.op) {
      case "embedding":
        this.#addWeight(node.table, () => {
          const [rows, width] = node.table.shape as [number, number];
          return { op: "embeddingGradient", gradient, rows, width };
        });
        break;
      case "layerNorm": {
        const { epsilon, width } = node;
        const x = value(node.x);
        this.#addVector(node.weight, () => {
          const moments: RowNode = { op: "rowMoments", x, epsilon, rows: x.rows, width: 2 };
          return { op: "layerNormWeightGradient", x, moments, gradient, rows: 1, width };
        });
        this.#addVector(node.bias, () => ({ op: "columnSums", x: gradient, rows: 1, width }));
        this.#add(node.x, () => {
          return { op: "layerNormGradient", x, weight: node.weight, gradient, epsilon, rows: x.rows, width };
        });
        break;
      }
      case "matmul": {
        const [outputs, inputs] = node.weight.shape as [number, number];
        this.#addWeight(node.weight, () => {
          return { op: "weightGradient", x: value(node.x), gradient, rows: outputs, width: inputs };
        });
        this.#add(node.x, () => {
          return { op: "transposedMatmul", weight: node.weight, x: gradient, rows: gradient.rows, width: inputs };
        });
        break;
      }
      case "wkv":
        this.#wkv(node, gradient);
        break;
      case "attention":
      case "linearAttention":
        this.#attention(node, gradient);
        break;
      case "aft":
        this.#attentionFree(node, gradient);
        break;
      case "elman": {
        const { weight, width, state } = node;
        const result = value(node);
        const dx: RowNode = { op: "elmanGradient", weight, result, gradient, rows: "tokens", width };
        const before: RowNode = { op: "previousRows", x: result, state, rows: "tokens", width };
        this.#addWeight(weight, () => ({ op: "weightGradient", x: before, gradient: dx, rows: width, width }));
        this.#add(node.x, () => dx);
        break;
      }
      case "gru":
        if (node.output !== "state") throw noRule(`gru, ${node.output}`);
        this.#gru(node, gradient);
        break;
      case "addPosition": {
        const [rows, width] = node.table.shape as [number, number];
        this.#addWeight(node.table, () => {
          return { op: "positionGradient", gradient, position: node.position, rows, width };
        });
        this.#add(node.x, () => gradient);
        break;
      }
      case "unary":
        this.#add(node.x, () => unaryGradient(node.function, value(node), gradient));
        break;
      case "binary": {
        const factor = (other: RowNode) =>
          node.function === "add" ? gradient : binary("multiply", gradient, value(other));
        if (node.function !== "add" && node.function !== "multiply") throw noRule(node.function);
        this.#add(node.a, () => factor(node.b));
        this.#add(node.b, () => factor(node.a));
        break;
      }
      case "scale":
        this.#add(node.x, () => ({ ...node, x: gradient }));
        break;
      case "dropout":
        this.#add(node.x, () => ({ ...node, x: gradient }));
        break;
      case "selectRows":
        this.#add(node.x, () => ({ op: "scatterRows", x: gradient, rows: "tokens", width: node.width }));
        break;
      case "vectorRow":
        this.#addVector(node.vector, () => gradient);
        break;
      default:
        throw noRule((node satisfies never as ForwardNode).op);
    }
  }

  #tokenShift(node: NodeOf<"tokenShift">, group: readonly NodeOf<"tokenShift">[]): void {
    // Outputs that nothing depends on have no gradient, and take no part.
    const used = group
      .filter((sibling) => this.#gradients.has(sibling))
      .sort((a, b) => a.output - b.output)
      .map((sibling) => ({
        factor: node.factors[sibling.output] as Vector,
        gradient: this.#gradients.get(sibling) as RowNode,
      }));
    if (used.length === 0) return;
    const common = {
      op: "tokenShiftGradient",
      x: this.#again.valueOf(node.x),
      previous: node.previous,
      factors: used.map(({ factor }) => factor),
      gradients: used.map(({ gradient }) => gradient),
      group: Symbol("tokenShiftGradient"),
      width: node.width,
    } as const;
    used.forEach(({ factor }, i) => {
      this.#addVector(factor, () => ({ ...common, output: `factor${i}`, rows: 1 }));
    });
    this.#addState(node.previous, () => ({ ...common, output: "state", rows: 1 }));
    this.#add(node.x, () => ({ ...common, output: "x", rows: "tokens" }));
  }

  #wkv(node: NodeOf<"wkv">, gradient: RowNode): void {
    const { decay, first, state, width } = node;
    const group = Symbol("wkvGradient");
    const [key, value] = [this.#again.valueOf(node.key), this.#again.valueOf(node.value)];
    const output = (name: "totals" | "key" | "value", columns: number): RowNode => {
      const common = { op: "wkvGradient", key, value, decay, first, state, gradient, group } as const;
      return { ...common, output: name, rows: "tokens", width: columns };
    };
    const totals = output("totals", wkvTotals.length * width);
    const total = (name: (typeof wkvTotals)[number]) => (): RowNode => {
      return { op: "segmentSums", x: totals, part: wkvTotals.indexOf(name), rows: 1, width };
    };
    this.#addVector(decay, total("decay"));
    this.#addVector(first, total("first"));
    this.#addState(state.numerator, total("numerator"));
    this.#addState(state.denominator, total("denominator"));
    this.#addState(state.maxExponent, total("maxExponent"));
    this.#add(node.key, () => output("key", width));
    this.#add(node.value, () => output("value", width));
  }

  #attentionFree(node: NodeOf<"aft">, gradient: RowNode): void {
    const value = (input: RowNode) => this.#again.valueOf(input);
    const inputs = { ...node, key: value(node.key), value: value(node.value), result: value(node), gradient };
    const group = Symbol("aftGradient");
    const output = (name: "key" | "value" | "moments", width: number): RowNode => {
      return { ...inputs, op: "aftGradient", group, output: name, width };
    };
    this.#add(node.key, () => output("key", node.width));
    this.#add(node.value, () => output("value", node.width));
    const [rows, width] = node.bias.shape as [number, number];
    this.#addWeight(node.bias, () => {
      return { ...inputs, op: "aftBiasGradient", moments: output("moments", 2 * node.width), rows, width };
    });
  }

  #gru(node: NodeOf<"gru">, gradient: RowNode): void {
    const result = this.#again.valueOf(node) as NodeOf<"gru">;
    const gate = (output: NodeOf<"gru">["output"]): RowNode => ({ ...result, output });
    const { weights, state, width } = node;
    const gates = { update: gate("update"), reset: gate("reset"), candidate: gate("candidate") };
    const group = Symbol("gruGradient");
    const of = (output: "update" | "reset" | "candidate"): RowNode => {
      return { op: "gruGradient", ...gates, weights, state, result, gradient, group, output, rows: "tokens", width };
    };
    const before: RowNode = { op: "previousRows", x: result, state, rows: "tokens", width };
    const seen = { update: before, reset: before, candidate: gate("left") };
    (["update", "reset", "candidate"] as const).forEach((name, i) => {
      const dx = of(name);
      this.#addWeight(weights[i] as WeightNode, () => {
        return { op: "weightGradient", x: seen[name], gradient: dx, rows: width, width };
      });
      this.#add(node[name], () => dx);
    });
  }

  /** What is in the state is taken as it is. */
  #attention(node: NodeOf<"attention"> | NodeOf<"linearAttention">, gradient: RowNode): void {
    const group = Symbol(`${node.op}Gradient`);
    const value = (input: RowNode) => this.#again.valueOf(input);
    const inputs = { query: value(node.query), key: value(node.key), value: value(node.value), result: value(node) };
    for (const output of ["query", "key", "value"] as const) {
      this.#add(node[output], () =>
        node.op === "attention"
          ? { ...node, ...inputs, op: "attentionGradient", gradient, group, output }
          : { ...node, ...inputs, op: "linearAttentionGradient", gradient, group, output },
      );
    }
  }

  #learns(node: ForwardNode): boolean {
    const learned = (vector: Vector) => this.#options.weights.has(weightOf(vector));
    const tuned = (...states: StateVector[]) => states.some((state) => this.#options.states?.has(state));
    switch (node.op) {
      case "embedding":
        return learned(node.table);
      case "matmul":
        return learned(node.weight);
      case "addPosition":
        return learned(node.table);
      case "aft":
        return learned(node.bias);
      case "elman":
        return learned(node.weight);
      case "gru":
        return node.weights.some(learned);
      case "layerNorm":
        return learned(node.weight) || learned(node.bias);
      case "tokenShift":
        return node.factors.some(learned) || tuned(node.previous);
      case "wkv": {
        const { numerator, denominator, maxExponent } = node.state;
        return learned(node.decay) || learned(node.first) || tuned(numerator, denominator, maxExponent);
      }
      case "vectorRow":
        return learned(node.vector);
      case "attention":
      case "linearAttention":
      case "unary":
      case "binary":
      case "scale":
      case "dropout":
      case "selectRows":
        return false;
      default:
        throw noRule((node satisfies never as ForwardNode).op);
    }
  }

  /** Adds to the gradient of a value, where anything to be learned flows into it. */
  #add(to: RowNode, make: () => RowNode): void {
    if (this.#concerned.has(to)) accumulate(this.#gradients, to, make());
  }

  #addWeight(weight: WeightNode, make: () => RowNode): void {
    if (this.#options.weights.has(weight)) accumulate(this.#weights, weight, make());
  }

  /** The gradient of a function of a vector goes on to the vector. */
  #addVector(vector: Vector, make: () => RowNode): void {
    if (!this.#options.weights.has(weightOf(vector))) return;
    let gradient = make();
    let at = vector;
    while (at.op === "vectorFunction") {
      const width = at.shape[0] as number;
      gradient = unaryGradient(at.function, { op: "vectorRow", vector: at, rows: 1, width }, gradient);
      at = at.x;
    }
    accumulate(this.#weights, at, gradient);
  }

  #addState(state: StateVector, make: () => RowNode): void {
    if (this.#options.states?.has(state)) accumulate(this.#states, state, make());
  }
}

function accumulate<Key>(gradients: Map<Key, RowNode>, key: Key, more: RowNode): void {
  const before = gradients.get(key);
  gradients.set(key, before ? binary("add", before, more) : more);
}

/** Of what a function was applied to, from the function's value and that value's gradient. */
function unaryGradient(fn: NodeOf<"unary">["function"], value: RowNode, gradient: RowNode): RowNode {
  switch (fn) {
    case "sigmoid":
      return binary("sigmoidGradient", value, gradient);
    case "reluSquared":
      return binary("reluSquaredGradient", value, gradient);
    case "eluPlusOne":
      return binary("eluPlusOneGradient", value, gradient);
    case "exp":
      return binary("multiply", value, gradient);
    case "negate":
      return unary("negate", gradient);
  }
}

function weightOf(vector: Vector): WeightNode {
  return vector.op === "vectorFunction" ? weightOf(vector.x) : vector;
}

function noRule(name: string): RangeError {
  return new RangeError(`${name}: there is no rule for the gradient of this operation`);
}
