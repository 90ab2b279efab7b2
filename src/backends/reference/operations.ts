// Every operation in its plainest form: the definition that the C kernels are tested against. Matrices are row-major;
// sums are taken in float64, results rounded to float32.

import type { BinaryFunction, UnaryFunction } from "../../graph/graph.js";
import { roundTripRow } from "../../quantization/blocks.js";

/** A matrix: `rows` rows of `width` floats. */
export interface Rows {
  readonly rows: number;
  readonly width: number;
  readonly values: Float32Array;
}

/** Consecutive rows of one sequence: `count` rows from row `start`, and that sequence's state block. */
export interface RowRange {
  readonly start: number;
  readonly count: number;
  readonly state: Float32Array;
}

export const unaryFunctions: Readonly<Record<UnaryFunction, (x: number) => number>> = {
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  relu: (x) => Math.max(x, 0),
  square: (x) => x * x,
  exp: Math.exp,
  negate: (x) => -x,
};

export const binaryFunctions: Readonly<Record<BinaryFunction, (a: number, b: number) => number>> = {
  add: (a, b) => a + b,
  multiply: (a, b) => a * b,
};

export function zeros(rows: number, width: number): Rows {
  return { rows, width, values: new Float32Array(rows * width) };
}

/** out[t] = table[indices[t]] */
export function gatherRows(table: Rows, indices: readonly number[]): Rows {
  const out = zeros(indices.length, table.width);
  indices.forEach((index, t) => {
    out.values.set(table.values.subarray(index * table.width, (index + 1) * table.width), t * table.width);
  });
  return out;
}

/** Layer normalization, arXiv 1607.06450, equation 4, with the biased variance. */
export function layerNorm(x: Rows, weight: Float32Array, bias: Float32Array, epsilon: number): Rows {
  const out = zeros(x.rows, x.width);
  for (let t = 0; t < x.rows; t++) {
    const row = x.values.subarray(t * x.width, (t + 1) * x.width);
    const mean = row.reduce((sum, value) => sum + value, 0) / x.width;
    const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.width;
    const scale = 1 / Math.sqrt(variance + epsilon);
    row.forEach((value, c) => {
      out.values[t * x.width + c] = (value - mean) * scale * (weight[c] as number) + (bias[c] as number);
    });
  }
  return out;
}

/** out[t] = x[t] * factor + x[t-1] * (1 - factor), x[-1] from `previous` at `offset` in each range's state. */
export function mixWithPrevious(x: Rows, ranges: readonly RowRange[], offset: number, factor: Float32Array): Rows {
  const out = zeros(x.rows, x.width);
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
  for (const { start, count, state } of ranges) {
    const last = start + count - 1;
    state.set(x.values.subarray(last * x.width, (last + 1) * x.width), offset);
  }
}

/** out[t][o] = sum over i of weight[o][i] * x[t][i] */
export function matmul(weight: Rows, x: { rows: number; width: number; values: Float32Array | Float64Array }): Rows {
  const out = zeros(x.rows, weight.rows);
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
    rounded.set(roundTripRow(x.values.subarray(t * x.width, (t + 1) * x.width)), t * x.width);
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
  decay: Float32Array,
  first: Float32Array,
  ranges: readonly RowRange[],
  offsets: WkvOffsets,
): Rows {
  const out = zeros(key.rows, key.width);
  for (const { start, count, state } of ranges) {
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
      state[offsets.numerator + c] = numerator;
      state[offsets.denominator + c] = denominator;
      state[offsets.maxExponent + c] = maxExponent;
    }
  }
  return out;
}
