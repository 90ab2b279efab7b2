// Builds the graph of a model, operation by operation, and checks shapes as it goes.

import {
  type BinaryFunction,
  binary,
  type Gates,
  type Graph,
  type RowNode,
  type StateVector,
  type UnaryFunction,
  unary,
  type Vector,
  type WeightNode,
  type WkvState,
} from "./graph.js";

/** Factors of one token shift: the kernel and its records have places for no more. */
const mostFactors = 4;

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
    if (factors.length > mostFactors) {
      throw new RangeError(`tokenShift: expected at most ${mostFactors} factors, found ${factors.length}`);
    }
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
