// What is told of a layer of a model, and how figures are made of the rows of its values.

import type { RowNode } from "../graph/graph.js";
import type { Rows } from "../graph/rows.js";
import type { ModelValues } from "./model-values.js";

/** One layer; lists are by token. */
export interface LayerExplanation extends RecurrenceExplanation {
  /** The number of the layer, from 0. */
  readonly layer: number;
  /** The mean distance of the weights, in tokens back, by token. */
  readonly reach: readonly number[];
  /** What the head makes of the residual stream after this layer. */
  readonly predictions: readonly Prediction[];
}

export interface Prediction {
  /** The most probable next token. */
  readonly text: string;
  readonly probability: number;
  /** The probability of the token that follows in the text; absent for the last one. */
  readonly probability_of_next?: number;
}

/** What is told of the recurrence of a layer; lists are by token. */
export interface RecurrenceExplanation {
  /** RWKV-4: the mean over channels, how much of the past is let through. RWKV-7, where it is a query: its root mean square. */
  readonly receptance: readonly number[];
  /** RWKV-4: the mean over channels, the exponent of a token's weight. RWKV-7: the root mean square. */
  readonly key: readonly number[];
  /** The value, root mean square over channels. */
  readonly value: readonly number[];
  /**
   * The half-life of each channel, ascending: the number of tokens after which decay leaves a half. In RWKV-7, where each token has its
   * own decay, that of the geometric mean over the text.
   */
  readonly half_lives: readonly number[];
  /**
   * Row t: the weights that the result puts on the values of tokens 0 to t. RWKV-4: mean over channels. RWKV-7: their sizes as shares of
   * the sum of these, mean over heads. Each row sums to 1.
   */
  readonly weights: readonly (readonly number[])[];
  /** RWKV-7 alone. */
  readonly delta_rule?: DeltaRuleExplanation;
}

/** What each token does to the matrices of RWKV-7; lists are by token, shares are means over heads. */
export interface DeltaRuleExplanation {
  /** What a channel keeps of itself, mean over channels. */
  readonly decay: readonly number[];
  /** How much of what is found along the removal key is replaced (a, the in-context learning rate), mean over channels. */
  readonly learning_rate: readonly number[];
  /** The size of what decay takes away, as a share of the matrix before. Sizes are Frobenius norms; 0 where the matrix is empty. */
  readonly faded: readonly number[];
  /** The same of what is removed along the removal key. */
  readonly removed: readonly number[];
  /** Row t: from the values of which tokens 0 to t - 1 that is taken: sizes of weights as shares of their sum, as in `weights`. */
  readonly removals: readonly (readonly number[])[];
  /** The share of `weights` that is below zero: values that are subtracted. */
  readonly subtracted: readonly number[];
}

/** The recurrence of a layer in a graph, and how it is told of. */
export interface ExplainedRecurrence {
  /** The nodes whose values it is told by. */
  readonly nodes: readonly RowNode[];
  explain(values: ModelValues): RecurrenceExplanation;
}

/** A figure of each row. */
export function byRow(rows: Rows, of: (row: ArrayLike<number>) => number): number[] {
  return Array.from({ length: rows.rows }, (_, t) => of(rows.values.subarray(t * rows.width, (t + 1) * rows.width)));
}

export function mean(row: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < row.length; i++) sum += row[i] as number;
  return sum / row.length;
}

export function rootMeanSquare(row: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < row.length; i++) sum += (row[i] as number) ** 2;
  return Math.sqrt(sum / row.length);
}
