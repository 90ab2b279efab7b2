// Every operation of models in its plainest form: the definition that the C kernels are tested against. Matrices are row-major;
// sums are taken in float64, results rounded to the type of the values: float32, or float64 where gradients are checked.

import type { BinaryFunction, UnaryFunction } from "../../graph/graph.js";
import { roundTripRow } from "../../quantization/blocks.js";

export type Floats = Float32Array | Float64Array;

/** A matrix: `rows` rows of `width` floats. */
export interface Rows {
  readonly rows: number;
  readonly width: number;
  readonly values: Floats;
}

/** Consecutive rows of one sequence: `count` rows from row `start`, and that sequence's state block before and after them. */
export interface RowRange {
  readonly start: number;
  readonly count: number;
  readonly state: Floats;
  readonly nextState: Floats;
}

export const unaryFunctions: Readonly<Record<UnaryFunction, (x: number) => number>> = {
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  reluSquared: (x) => Math.max(x, 0) ** 2,
  exp: Math.exp,
  negate: (x) => -x,
  eluPlusOne: (x) => (x > 0 ? x + 1 : Math.exp(x)), // of exponential linear units, arXiv 1511.07289
};

export const binaryFunctions: Readonly<Record<BinaryFunction, (a: number, b: number) => number>> = {
  add: (a, b) => a + b,
  multiply: (a, b) => a * b,
  // Of y = 1 / (1 + e^-x) the derivative is y (1 - y); of y = max(x, 0)^2 it is 2 max(x, 0), which is 2 sqrt(y).
  sigmoidGradient: (y, gradient) => y * (1 - y) * gradient,
  reluSquaredGradient: (y, gradient) => 2 * Math.sqrt(y) * gradient,
  eluPlusOneGradient: (y, gradient) => Math.min(y, 1) * gradient,
};

/** A matrix of zeros, of the element type of `like`. */
export function zeros(rows: number, width: number, like: Floats): Rows {
  const length = rows * width;
  return { rows, width, values: like instanceof Float64Array ? new Float64Array(length) : new Float32Array(length) };
}

/** A function of each element. */
export function mapRows(x: Rows, fn: (value: number) => number): Rows {
  const out = zeros(x.rows, x.width, x.values);
  for (let i = 0; i < out.values.length; i++) out.values[i] = fn(x.values[i] as number);
  return out;
}

/** A function of the elements at the same place. */
export function zipRows(a: Rows, b: Rows, fn: (a: number, b: number) => number): Rows {
  const out = zeros(a.rows, a.width, a.values);
  for (let i = 0; i < out.values.length; i++) out.values[i] = fn(a.values[i] as number, b.values[i] as number);
  return out;
}

/** out[t] = table[indices[t]] */
export function gatherRows(table: Rows, indices: readonly number[]): Rows {
  const out = zeros(indices.length, table.width, table.values);
  indices.forEach((index, t) => {
    out.values.set(table.values.subarray(index * table.width, (index + 1) * table.width), t * table.width);
  });
  return out;
}

/** Layer normalization, arXiv 1607.06450, equation 4, with the biased variance. */
export function layerNorm(x: Rows, weight: Floats, bias: Floats, epsilon: number): Rows {
  const out = zeros(x.rows, x.width, x.values);
  for (let t = 0; t < x.rows; t++) {
    const { mean, scale } = momentsOf(x, t, epsilon);
    for (let c = 0; c < x.width; c++) {
      const normal = ((x.values[t * x.width + c] as number) - mean) * scale;
      out.values[t * x.width + c] = normal * (weight[c] as number) + (bias[c] as number);
    }
  }
  return out;
}

/** Mean of a row, and 1 / sqrt(variance + epsilon). */
export function momentsOf(x: Rows, row: number, epsilon: number): { mean: number; scale: number } {
  let sum = 0;
  for (let c = 0; c < x.width; c++) sum += x.values[row * x.width + c] as number;
  const mean = sum / x.width;
  let squares = 0;
  for (let c = 0; c < x.width; c++) squares += ((x.values[row * x.width + c] as number) - mean) ** 2;
  return { mean, scale: 1 / Math.sqrt(squares / x.width + epsilon) };
}

/** out[t] = x[t] * factor + x[t-1] * (1 - factor), x[-1] from `previous` at `offset` in each range's state. */
export function mixWithPrevious(x: Rows, ranges: readonly RowRange[], offset: number, factor: Floats): Rows {
  const out = zeros(x.rows, x.width, x.values);
  for (const { start, count, state } of ranges) {
    for (let t = start; t < start + count; t++) {
      for (let c = 0; c < x.width; c++) {
        const before = t > start ? x.values[(t - 1) * x.width + c] : state[offset + c];
        const m = factor[c] as number;
        out.values[t * x.width + c] = (x.values[t * x.width + c] as number) * m + (before as number) * (1 - m);
      }
    }
  }
  return out;
}

/** Leaves each range's last row in its state. */
export function saveLastRow(x: Rows, ranges: readonly RowRange[], offset: number): void {
  for (const { start, count, nextState } of ranges) {
    const last = start + count - 1;
    nextState.set(x.values.subarray(last * x.width, (last + 1) * x.width), offset);
  }
}

/** out[t][o] = sum over i of weight[o][i] * x[t][i] */
export function matmul(weight: Rows, x: Rows): Rows {
  const out = zeros(x.rows, weight.rows, weight.values);
  for (let t = 0; t < x.rows; t++) {
    for (let o = 0; o < weight.rows; o++) {
      let sum = 0;
      for (let i = 0; i < x.width; i++) {
        sum += (weight.values[o * weight.width + i] as number) * (x.values[t * x.width + i] as number);
      }
      out.values[t * weight.rows + o] = sum;
    }
  }
  return out;
}

/** matmul with a weight in blocks: x is rounded to blocks of 8 bits first, as the integer kernels take it. */
export function matmulInBlocks(weight: Rows, x: Rows): Rows {
  const rounded = new Float64Array(x.values.length);
  for (let t = 0; t < x.rows; t++) {
    rounded.set(roundTripRow(Float32Array.from(x.values.subarray(t * x.width, (t + 1) * x.width))), t * x.width);
  }
  return matmul(weight, { ...x, values: rounded });
}

/** Offsets of the three sums in a state block. */
export interface WkvOffsets {
  readonly numerator: number;
  readonly denominator: number;
  readonly maxExponent: number;
}

/**
 * The wkv recurrence in its numerically safe form, arXiv 2305.13048v2, appendix D: all exponentials are relative to the
 * largest exponent so far, so none exceeds 1 whatever the keys.
 */
export function wkv(
  key: Rows,
  value: Rows,
  decay: Floats,
  first: Floats,
  ranges: readonly RowRange[],
  offsets: WkvOffsets,
): Rows {
  const out = zeros(key.rows, key.width, key.values);
  for (const { start, count, state, nextState } of ranges) {
    for (let c = 0; c < key.width; c++) {
      let numerator = state[offsets.numerator + c] as number;
      let denominator = state[offsets.denominator + c] as number;
      let maxExponent = state[offsets.maxExponent + c] as number;
      const w = decay[c] as number;
      const u = first[c] as number;
      for (let t = start; t < start + count; t++) {
        const k = key.values[t * key.width + c] as number;
        const v = value.values[t * key.width + c] as number;

        let q = Math.max(maxExponent, u + k);
        const past = Math.exp(maxExponent - q);
        const present = Math.exp(u + k - q);
        out.values[t * key.width + c] = (past * numerator + present * v) / (past * denominator + present);

        q = Math.max(maxExponent + w, k);
        const decayed = Math.exp(maxExponent + w - q);
        const added = Math.exp(k - q);
        numerator = decayed * numerator + added * v;
        denominator = decayed * denominator + added;
        maxExponent = q;
      }
      nextState[offsets.numerator + c] = numerator;
      nextState[offsets.denominator + c] = denominator;
      nextState[offsets.maxExponent + c] = maxExponent;
    }
  }
  return out;
}
