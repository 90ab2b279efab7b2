// The language that models are written in: a graph of operations over matrices whose rows are tokens. A model builds one
// once; the reference backend walks it as it stands, the kernel backends compile it to a plan. Nothing here computes.

import type { GradientNode } from "./gradient-nodes.js";

/**
 * How many rows a value has in a pass: one for every token of the pass, one for every token whose logits are wanted, or the same
 * in every pass, as the gradient of a weight has.
 */
export type RowSet = "tokens" | "selected" | number;

/** A weight that the checkpoint holds, by its canonical name. Vectors are small and computed with in float32. */
export interface WeightNode {
  readonly op: "matrix" | "vector";
  readonly name: string;
  /** Matrices: [outputs, inputs], row-major. Vectors: [length]. */
  readonly shape: readonly number[];
}

/** A vector of float32 that a sequence carries from token to token. */
export interface StateVector {
  /** Position among the graph's state vectors. */
  readonly index: number;
  readonly width: number;
  /** Value of every element before the first token. */
  readonly initial: number;
}

/** Functions of one element. */
export type UnaryFunction = "sigmoid" | "reluSquared" | "exp" | "negate" | "eluPlusOne";
/**
 * Functions of two elements. The gradient of a function takes the function's result and that result's gradient, and gives the
 * gradient of what the function was applied to.
 */
export type BinaryFunction = "add" | "multiply" | "sigmoidGradient" | "reluSquaredGradient" | "eluPlusOneGradient";

export interface Row {
  readonly rows: RowSet;
  readonly width: number;
}

/** A value with a row of `width` floats for each token of its row set. */
export type RowNode = ForwardNode | GradientNode;

/** What models are written in. Each has a rule for its gradient (differentiate.ts). */
export type ForwardNode =
  | (Row & { readonly op: "embedding"; readonly table: WeightNode })
  | (Row & {
      readonly op: "layerNorm";
      readonly x: RowNode;
      readonly weight: Vector;
      readonly bias: Vector;
      readonly epsilon: number;
    })
  | (Row & {
      readonly op: "tokenShift";
      readonly x: RowNode;
      readonly previous: StateVector;
      readonly factors: readonly Vector[];
      readonly output: number;
      readonly group: symbol;
    })
  | (Row & { readonly op: "matmul"; readonly weight: WeightNode; readonly x: RowNode })
  | (Row & {
      readonly op: "wkv";
      readonly key: RowNode;
      readonly value: RowNode;
      readonly decay: Vector;
      readonly first: Vector;
      readonly state: WkvState;
    })
  | (Row & { readonly op: "unary"; readonly function: UnaryFunction; readonly x: RowNode })
  | (Row & { readonly op: "binary"; readonly function: BinaryFunction; readonly a: RowNode; readonly b: RowNode })
  | (Row & { readonly op: "scale"; readonly x: RowNode; readonly factor: number })
  | (Row & { readonly op: "dropout"; readonly x: RowNode; readonly rate: number; readonly index: number })
  | (Row & { readonly op: "selectRows"; readonly x: RowNode })
  | (Row & {
      readonly op: "addPosition";
      readonly x: RowNode;
      readonly table: WeightNode;
      readonly position: StateVector;
    })
  | (Row & AttentionFree & { readonly op: "aft" })
  | (Row & { readonly op: "elman"; readonly x: RowNode; readonly weight: WeightNode; readonly state: StateVector })
  | (Row &
      Gates & {
        readonly op: "gru";
        /** The state, its gates, its candidate, or what the reset gate leaves of it. */
        readonly output: "state" | "update" | "reset" | "candidate" | "left";
        readonly group: symbol;
      })
  | (Row & Heads & { readonly op: "attention"; readonly cache: KeyValueCache })
  | (Row & Heads & { readonly op: "linearAttention"; readonly sums: StateVector; readonly normalizer: StateVector })
  | (Row & { readonly op: "vectorRow"; readonly vector: Vector });

/** What kinds of attention take: each in `heads` parts of its width. */
export interface Heads {
  readonly query: RowNode;
  readonly key: RowNode;
  readonly value: RowNode;
  readonly heads: number;
}

/** What the Attention Free Transformer's average takes. */
export interface AttentionFree {
  readonly key: RowNode;
  readonly value: RowNode;
  /** Row for a position or a head, column for how many tokens back. */
  readonly bias: WeightNode;
  /** Heads that biases are by; 0 where they are by position. */
  readonly heads: number;
  readonly state: AttentionFreeState;
}

/** The last tokens' keys and values in a ring, and sums over those before. */
export interface AttentionFreeState {
  readonly count: StateVector;
  readonly keys: StateVector;
  readonly values: StateVector;
  /** Tokens that the ring has room for. */
  readonly slots: number;
  /** Declared one after another. */
  readonly past: WkvState;
}

/** What a gated recurrent unit takes: rows and a matrix for each of its gates and its candidate. */
export interface Gates {
  readonly update: RowNode;
  readonly reset: RowNode;
  readonly candidate: RowNode;
  readonly weights: readonly [update: WeightNode, reset: WeightNode, candidate: WeightNode];
  readonly state: StateVector;
}

/** Keys and values of all tokens so far: a state that has room for `capacity` of them. */
export interface KeyValueCache {
  /** Tokens so far, for each head. */
  readonly count: StateVector;
  readonly keys: StateVector;
  readonly values: StateVector;
  readonly capacity: number;
}

/** State of the wkv recurrence: sums weighted by e^key, divided by e^maxExponent so that they never overflow. */
export interface WkvState {
  readonly numerator: StateVector;
  readonly denominator: StateVector;
  readonly maxExponent: StateVector;
}

/** A vector weight, or a function of one, computed when the model is loaded. */
export type Vector =
  | WeightNode
  | {
      readonly op: "vectorFunction";
      readonly function: UnaryFunction;
      readonly x: Vector;
      readonly shape: readonly number[];
    };

/** A finished graph. */
export interface Graph {
  /** Logits: a row of `width` = vocabulary size for each selected token. */
  readonly output: RowNode;
  readonly weights: readonly WeightNode[];
  /** In the order in which a saved state holds them. */
  readonly stateVectors: readonly StateVector[];
  /**
   * Values that gradient checkpointing keeps, in order: everything between two of them can be computed again from the first
   * (Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174).
   */
  readonly checkpoints: readonly RowNode[];
}

/** Builds a graph. Every method checks shapes, so that a mistake in a model fails where it is made. */
export class GraphBuilder {
  readonly #weights = new Map<string, WeightNode>();
  readonly #stateVectors: StateVector[] = [];
  readonly #checkpoints: RowNode[] = [];
  #dropouts = 0;

  /** A weight matrix [outputs, inputs]. */
  matrix(name: string, outputs: number, inputs: number): WeightNode {
    return this.#weight({ op: "matrix", name, shape: [outputs, inputs] });
  }

  /** A weight vector [length]; stored shapes with further dimensions of 1 are the same to it. */
  vector(name: string, length: number): WeightNode {
    return this.#weight({ op: "vector", name, shape: [length] });
  }

  /** A function of a vector weight, computed once at load. */
  vectorFunction(fn: UnaryFunction, x: Vector): Vector {
    return { op: "vectorFunction", function: fn, x, shape: x.shape };
  }

  /** A state vector; the order of calls is the order in saved states. */
  state(width: number, initial: number): StateVector {
    const vector = { index: this.#stateVectors.length, width, initial };
    this.#stateVectors.push(vector);
    return vector;
  }

  /** The row of the table for each token. */
  embedding(table: WeightNode): RowNode {
    return { op: "embedding", table, rows: "tokens", width: table.shape[1] as number };
  }

  /** (x - mean) / sqrt(variance + epsilon) * weight + bias, over each row. */
  layerNorm(x: RowNode, weight: Vector, bias: Vector, epsilon: number): RowNode {
    requireLength("layerNorm", x.width, weight, bias);
    return { op: "layerNorm", x, weight, bias, epsilon, rows: x.rows, width: x.width };
  }

  /**
   * For each factor m: x * m + previous * (1 - m), where previous is the row of the token before (from the state at the
   * start of a segment). Leaves the last row in the state.
   */
  tokenShift<const Factors extends readonly Vector[]>(
    x: RowNode,
    previous: StateVector,
    factors: Factors,
  ): { [K in keyof Factors]: RowNode } {
    requireLength("tokenShift", x.width, ...factors);
    requireTokens("tokenShift", x);
    const group = Symbol("tokenShift");
    const outputs = factors.map((_, output): RowNode => {
      return { op: "tokenShift", x, previous, factors, output, group, rows: "tokens", width: x.width };
    });
    return outputs as { [K in keyof Factors]: RowNode };
  }

  /** weight · x for each row: [inputs] to [outputs]. */
  matmul(weight: WeightNode, x: RowNode): RowNode {
    const [outputs, inputs] = weight.shape as [number, number];
    if (inputs !== x.width) throw new RangeError(`matmul ${weight.name}: expected rows of ${inputs}, found ${x.width}`);
    return { op: "matmul", weight, x, rows: x.rows, width: outputs };
  }

  /** The weighted average of values over time; see docs/model.md. Leaves sums and exponents in the state. */
  wkv(key: RowNode, value: RowNode, decay: Vector, first: Vector, state: WkvState): RowNode {
    requireLength("wkv", key.width, decay, first);
    requireTokens("wkv", key);
    if (value.width !== key.width) throw new RangeError(`wkv: keys of ${key.width}, values of ${value.width}`);
    return { op: "wkv", key, value, decay, first, state, rows: "tokens", width: key.width };
  }

  /** x plus the row of the table for each token's position in its sequence; a table [capacity, width]. */
  addPosition(x: RowNode, table: WeightNode): RowNode {
    requireTokens("addPosition", x);
    const position = this.state(x.width, 0);
    return { op: "addPosition", x, table, position, rows: "tokens", width: x.width };
  }

  /**
   * The causal average of the Attention Free Transformer (arXiv 2105.14103): weights e^(key + bias).
   *
   * @param bias [positions or heads, window]: for tokens less than `window` back; those further back have none
   * @param heads parts of the width that biases are by; 0 where they are by position
   */
  attentionFree(key: RowNode, value: RowNode, bias: WeightNode, heads: number): RowNode {
    const { width } = requireHeads("attentionFree", key, key, value, Math.max(1, heads), key.width);
    const window = bias.shape[1] as number;
    const slots = Math.max(1, window - 1);
    const state = {
      count: this.state(width, 0),
      keys: this.state(slots * width, 0),
      values: this.state(slots * width, 0),
      slots,
      past: {
        numerator: this.state(width, 0),
        denominator: this.state(width, 0),
        maxExponent: this.state(width, -1e30),
      },
    };
    return { op: "aft", key, value, bias, heads, state, rows: "tokens", width };
  }

  /** The simple recurrent network (Elman 1990): h[t] = tanh(x[t] + weight h[t-1]). */
  elman(x: RowNode, weight: WeightNode): RowNode {
    requireTokens("elman", x);
    return { op: "elman", x, weight, state: this.state(x.width, 0), rows: "tokens", width: x.width };
  }

  /** The gated recurrent unit (arXiv 1406.1078, equations 5 to 8). */
  gru(update: RowNode, reset: RowNode, candidate: RowNode, weights: Gates["weights"]): RowNode {
    requireTokens("gru", update);
    const state = this.state(update.width, 0);
    const group = Symbol("gru");
    const { width } = update;
    return { op: "gru", update, reset, candidate, weights, state, output: "state", group, rows: "tokens", width };
  }

  /** Causal softmax attention (arXiv 1706.03762, section 3.2) in `heads` parts, over at most `capacity` tokens. */
  attention(query: RowNode, key: RowNode, value: RowNode, heads: number, capacity: number): RowNode {
    const { width } = requireHeads("attention", query, key, value, heads, 256);
    const cache = {
      count: this.state(heads, 0),
      keys: this.state(capacity * width, 0),
      values: this.state(capacity * width, 0),
      capacity,
    };
    return { op: "attention", query, key, value, heads, cache, rows: "tokens", width };
  }

  /** Causal linear attention (arXiv 2006.16236) in `heads` parts; queries and keys are features, not negative. */
  linearAttention(query: RowNode, key: RowNode, value: RowNode, heads: number): RowNode {
    const { width } = requireHeads("linearAttention", query, key, value, heads, 64);
    const sums = this.state((width * width) / heads, 0);
    const normalizer = this.state(width, 0);
    return { op: "linearAttention", query, key, value, heads, sums, normalizer, rows: "tokens", width };
  }

  unary(fn: UnaryFunction, x: RowNode): RowNode {
    return unary(fn, x);
  }

  binary(fn: BinaryFunction, a: RowNode, b: RowNode): RowNode {
    return binary(fn, a, b);
  }

  /** x, marked as a value that gradient checkpointing keeps: the input of a layer. */
  checkpoint(x: RowNode): RowNode {
    this.#checkpoints.push(x);
    return x;
  }

  /** Leaves out elements at random, this share of them, and scales the others up to make up for it; in training only. */
  dropout(x: RowNode, rate: number): RowNode {
    return rate === 0 ? x : { op: "dropout", x, rate, index: this.#dropouts++, rows: x.rows, width: x.width };
  }

  /** The rows of the tokens whose logits are wanted. */
  selectRows(x: RowNode): RowNode {
    requireTokens("selectRows", x);
    return { op: "selectRows", x, rows: "selected", width: x.width };
  }

  finish(output: RowNode): Graph {
    return {
      output,
      weights: [...this.#weights.values()],
      stateVectors: this.#stateVectors,
      checkpoints: this.#checkpoints,
    };
  }

  #weight(node: WeightNode): WeightNode {
    if (this.#weights.has(node.name)) throw new RangeError(`weight ${node.name} is used twice`);
    this.#weights.set(node.name, node);
    return node;
  }
}

export function unary(fn: UnaryFunction, x: RowNode): RowNode {
  return { op: "unary", function: fn, x, rows: x.rows, width: x.width };
}

export function binary(fn: BinaryFunction, a: RowNode, b: RowNode): RowNode {
  if (a.rows !== b.rows || a.width !== b.width) throw new RangeError(`${fn}: ${a.width} and ${b.width} wide`);
  return { op: "binary", function: fn, a, b, rows: a.rows, width: a.width };
}

/** The values a node is computed from. */
export function inputsOf(node: RowNode): readonly RowNode[] {
  switch (node.op) {
    case "embedding":
    case "vectorRow":
      return [];
    case "wkv":
      return [node.key, node.value];
    case "binary":
      return [node.a, node.b];
    case "aft":
      return [node.key, node.value];
    case "aftGradient":
      return [node.key, node.value, node.gradient, node.result];
    case "aftBiasGradient":
      return [node.key, node.value, node.gradient, node.result, node.moments];
    case "elmanGradient":
      return [node.result, node.gradient];
    case "gru":
      return [node.update, node.reset, node.candidate];
    case "gruGradient":
      return [node.result, node.update, node.reset, node.candidate, node.gradient];
    case "attention":
    case "linearAttention":
      return [node.query, node.key, node.value];
    case "attentionGradient":
    case "linearAttentionGradient":
      return [node.query, node.key, node.value, node.result, node.gradient];
    case "positionGradient":
      return [node.gradient];
    case "crossEntropy":
      return [node.logits];
    case "embeddingGradient":
      return [node.gradient];
    case "weightGradient":
    case "layerNormGradient":
      return [node.x, node.gradient];
    case "layerNormWeightGradient":
      return [node.x, node.moments, node.gradient];
    case "tokenShiftGradient":
      return [node.x, ...node.gradients];
    case "wkvGradient":
      return [node.key, node.value, node.gradient];
    default:
      return [node.x];
  }
}

/** All nodes that the roots need, each after its inputs; what the first root needs comes first. */
export function topologicalOrder(...roots: readonly RowNode[]): RowNode[] {
  const order: RowNode[] = [];
  const seen = new Set<RowNode>();
  for (const root of roots) {
    if (seen.has(root)) continue;
    const stack: { node: RowNode; next: number }[] = [{ node: root, next: 0 }];
    seen.add(root);
    while (stack.length > 0) {
      const frame = stack[stack.length - 1] as (typeof stack)[number];
      const input = inputsOf(frame.node)[frame.next++];
      if (input === undefined) {
        order.push(frame.node);
        stack.pop();
      } else if (!seen.has(input)) {
        seen.add(input);
        stack.push({ node: input, next: 0 });
      }
    }
  }
  return order;
}

function requireLength(op: string, width: number, ...vectors: readonly Vector[]): void {
  for (const { shape } of vectors) {
    if (shape[0] !== width) throw new RangeError(`${op}: rows of ${width}, a vector of ${shape[0]}`);
  }
}

function requireHeads(
  op: string,
  query: RowNode,
  key: RowNode,
  value: RowNode,
  heads: number,
  widest: number,
): RowNode {
  for (const rows of [query, key, value]) {
    requireTokens(op, rows);
    if (rows.width !== query.width) throw new RangeError(`${op}: rows of ${query.width} and of ${rows.width}`);
  }
  if (query.width % heads !== 0 || query.width / heads > widest) {
    throw new RangeError(`${op}: rows of ${query.width} in ${heads} heads, each at most ${widest} wide`);
  }
  return query;
}

function requireTokens(op: string, x: RowNode): void {
  if (x.rows !== "tokens") throw new RangeError(`${op}: walks along time, so it needs a row for every token`);
}
