// What is left of each token in the matrix of a head of RWKV-7, and what it weighs, by products of transition matrices.
//
// The recurrence S[t] = S[t-1] M[t] + v[t] k[t]ᵀ with the transition matrix M[t] = diag(w[t]) - κ[t] (κ[t] ⊙ a[t])ᵀ (arXiv 2503.14456,
// section 3) is linear in what was written. So S[t] is the sum over tokens s of v[s] q[s]ᵀ with q[s] = (k[s]ᵀ M[s+1] ... M[t])ᵀ, and
// whatever is read out of it by a vector x is the values with weights: S[t] x = Σ (q[s] · x) v[s].

import type { Rows } from "../graph/rows.js";

/** The rows that the recurrence takes, each with the channels of all heads. */
export interface DeltaRuleRows {
  readonly receptance: Rows;
  readonly decay: Rows;
  readonly key: Rows;
  readonly value: Rows;
  /** κ, of length 1 in each head. */
  readonly removal: Rows;
  /** κ ⊙ a */
  readonly replacement: Rows;
}

/** What a head does with a text from the empty state; lists are by token. */
export interface HeadHistory {
  /** Row t: what the value of each token 0 to t is multiplied by in the result S[t] r[t]. */
  readonly weights: readonly Float64Array[];
  /** Row t: what the value of each token 0 to t - 1 is multiplied by in S[t-1] κ[t], which the token removes. */
  readonly removals: readonly Float64Array[];
  /** |S[t-1] (1 - diag(w[t]))| / |S[t-1]|, Frobenius norms; 0 where S[t-1] is 0. */
  readonly faded: readonly number[];
  /** |S[t-1] κ[t] (κ[t] ⊙ a[t])ᵀ| / |S[t-1]| */
  readonly removed: readonly number[];
}

/** @param head the number of the head, each of `size` channels */
export function headHistory(rows: DeltaRuleRows, head: number, size: number): HeadHistory {
  const at = ({ values, width }: Rows, t: number) =>
    Float64Array.from(values.subarray(t * width + head * size, t * width + (head + 1) * size));
  const weights: Float64Array[] = [];
  const removals: Float64Array[] = [];
  const faded: number[] = [];
  const removed: number[] = [];
  /** q of each token so far, and the values that were written with it. */
  const left: Float64Array[] = [];
  const written: Float64Array[] = [];
  for (let t = 0; t < rows.key.rows; t++) {
    const [decay, removal, replacement] = [at(rows.decay, t), at(rows.removal, t), at(rows.replacement, t)];
    const before = sumOfProducts(written, left, size);
    const removalWeights = Float64Array.from(left, (q) => dot(q, removal));
    removals.push(removalWeights);
    const whole = Math.sqrt(dot(before, before));
    const share = (part: number) => (whole === 0 ? 0 : part / whole);
    const gone = before.map((value, i) => value * (1 - (decay[i % size] as number)));
    faded.push(share(Math.sqrt(dot(gone, gone))));
    removed.push(share(lengthOfProduct(before, removal, size) * Math.sqrt(dot(replacement, replacement))));
    left.forEach((q, s) => {
      const along = removalWeights[s] as number;
      q.forEach((value, i) => {
        q[i] = value * (decay[i] as number) - along * (replacement[i] as number);
      });
    });
    left.push(at(rows.key, t));
    written.push(at(rows.value, t));
    const receptance = at(rows.receptance, t);
    weights.push(Float64Array.from(left, (q) => dot(q, receptance)));
  }
  return { weights, removals, faded, removed };
}

/** Σ v qᵀ, [size, size] row-major. */
function sumOfProducts(values: readonly Float64Array[], keys: readonly Float64Array[], size: number): Float64Array {
  const matrix = new Float64Array(size * size);
  values.forEach((v, s) => {
    const q = keys[s] as Float64Array;
    for (let i = 0; i < matrix.length; i++) {
      matrix[i] = (matrix[i] as number) + (v[Math.floor(i / size)] as number) * (q[i % size] as number);
    }
  });
  return matrix;
}

/** The length of matrix · x. */
function lengthOfProduct(matrix: Float64Array, x: Float64Array, size: number): number {
  let squares = 0;
  for (let row = 0; row < size; row++) squares += dot(matrix.subarray(row * size, (row + 1) * size), x) ** 2;
  return Math.sqrt(squares);
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
}
