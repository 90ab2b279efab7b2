// Builds the graph of a model, operation by operation. Shapes are checked as it goes, so that a mistake in a model fails where it
// is made. What needs no bookkeeping, such as functions of elements, is a function beside it (operations/).

import type { Graph, RowNode, StateVector, Vector, WeightNode } from "./graph.js";
import { dropout } from "./operations/dropout.js";
import type { UnaryName } from "./operations/elementwise.js";
import { embedding } from "./operations/embedding.js";
import { headNorm, headNormalize, headSum } from "./operations/heads.js";
import { layerNorm } from "./operations/layer-norm.js";
import { matmul } from "./operations/matmul.js";
import { selectRows } from "./operations/selection.js";
import { shiftDifference, tokenShift } from "./operations/token-shift.js";
import { wkv } from "./operations/wkv.js";
import { wkv6 } from "./operations/wkv6.js";
import { wkv7 } from "./operations/wkv7.js";

/** The state of the wkv recurrence: sums weighted by e^key, divided by e^maxExponent so that they never overflow. */
export interface WkvState {
  readonly numerator: StateVector;
  readonly denominator: StateVector;
  readonly maxExponent: StateVector;
}

/** What wkv6 computes with; see docs/model.md. */
export interface Wkv6Rows {
  readonly decay: RowNode;
  readonly receptance: RowNode;
  readonly key: RowNode;
  readonly value: RowNode;
  readonly bonus: RowNode;
}

/** What wkv7 takes; each row has the channels of all heads. */
export interface Wkv7Rows {
  readonly receptance: RowNode;
  /** What each key's share of the matrix is multiplied by, in (0, 1). */
  readonly decay: RowNode;
  readonly key: RowNode;
  readonly value: RowNode;
  /** The direction along which the matrix forgets. */
  readonly removal: RowNode;
  /** The direction that what is removed is taken from. */
  readonly replacement: RowNode;
}

/** What may be said of a matrix. */
export type MatrixOptions = Pick<WeightNode, "fewestBits">;

/** Builds a graph. */
export class GraphBuilder {
  readonly #weights = new Map<string, WeightNode>();
  readonly #stateVectors: StateVector[] = [];
  readonly #checkpoints: RowNode[] = [];
  #dropouts = 0;

  /** A weight matrix [outputs, inputs]. */
  matrix(name: string, outputs: number, inputs: number, options: MatrixOptions = {}): WeightNode {
    return this.#weight({ op: "matrix", name, shape: [outputs, inputs], ...options });
  }

  /** A weight vector [length]; stored shapes with further dimensions of 1 are the same to it. */
  vector(name: string, length: number): WeightNode {
    return this.#weight({ op: "vector", name, shape: [length] });
  }

  /** A function of a vector weight, computed once at load. */
  vectorFunction(fn: UnaryName, x: Vector): Vector {
    return { op: "vectorFunction", function: fn, x, shape: x.shape };
  }

  /**
   * A state of these dimensions, or of this many floats; the order of calls is the order in saved states.
   *
   * @param initial the value of every element before the first token, or the name of a weight that holds all of them
   */
  state(shape: number | readonly number[], initial: number | string): StateVector {
    const dimensions = typeof shape === "number" ? [shape] : shape;
    const width = dimensions.reduce((product, dimension) => product * dimension, 1);
    const vector = {
      index: this.#stateVectors.length,
      shape: dimensions,
      width,
      initial: typeof initial === "number" ? initial : this.#weight({ op: "vector", name: initial, shape: dimensions }),
    };
    this.#stateVectors.push(vector);
    return vector;
  }

  /** The row of the table for each token. */
  embedding(table: WeightNode): RowNode {
    return embedding.apply({ table }).result;
  }

  /** (x - mean) / sqrt(variance + epsilon) * weight + bias, over each row. */
  layerNorm(x: RowNode, weight: Vector, bias: Vector, epsilon: number): RowNode {
    return layerNorm.apply({ x, weight, bias, epsilon }).result;
  }

  /** (x - mean) / sqrt(variance + epsilon), over each head of a row. */
  headNorm(x: RowNode, heads: number, epsilon: number): RowNode {
    return headNorm.apply({ x, heads, epsilon }).result;
  }

  /** x / max(|x|, epsilon), over each head of a row. */
  headNormalize(x: RowNode, heads: number, epsilon: number): RowNode {
    return headNormalize.apply({ x, heads, epsilon }).result;
  }

  /** The sum of each head's channels: a row of `heads` floats. */
  headSum(x: RowNode, heads: number): RowNode {
    return headSum.apply({ x, heads }).result;
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
    return tokenShift.apply({ x, previous, factors }).results as { [K in keyof Factors]: RowNode };
  }

  /** What the row of the token before is more than each row, as in `tokenShift`. Leaves the last row in the state. */
  shiftDifference(x: RowNode, previous: StateVector): RowNode {
    return shiftDifference.apply({ x, previous }).result;
  }

  /** weight · x for each row: [inputs] to [outputs]. */
  matmul(weight: WeightNode, x: RowNode): RowNode {
    return matmul.apply({ weight, x }).result;
  }

  /** The weighted average of values over time; see docs/model.md. Leaves sums and exponents in the state. */
  wkv(key: RowNode, value: RowNode, decay: Vector, first: Vector, state: WkvState): RowNode {
    return wkv.apply({ key, value, decay, first, ...state }).result;
  }

  /**
   * The recurrence of Eagle and Finch (arXiv 2404.05892), over a matrix for each head. Leaves it in the state [heads, size, size].
   *
   * @param rows decays are a row for each token or one for all, the bonus is one for all
   */
  wkv6(rows: Wkv6Rows, matrix: StateVector): RowNode {
    return wkv6.apply({ ...rows, matrix, heads: matrix.shape[0] as number }).result;
  }

  /** What the matrix of each head answers to the receptance, after the token changed it; see docs/model.md. Leaves it in the state. */
  wkv7(rows: Wkv7Rows, heads: number, matrix: StateVector): RowNode {
    return wkv7.apply({ ...rows, heads, matrix }).result;
  }

  /** x, marked as a value that gradient checkpointing keeps: the input of a layer. */
  checkpoint(x: RowNode): RowNode {
    this.#checkpoints.push(x);
    return x;
  }

  /** Leaves out elements at random, this share of them, and scales the others up to make up for it; in training only. */
  dropout(x: RowNode, rate: number): RowNode {
    return rate === 0 ? x : dropout.apply({ x, rate, index: this.#dropouts++ }).result;
  }

  /** The rows of the tokens whose logits are wanted. */
  selectRows(x: RowNode): RowNode {
    return selectRows.apply({ x }).result;
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
