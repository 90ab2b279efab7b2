// Values that the weights of new models begin with, as definitions put them together.

import type { RandomGenerator } from "../sampling/random.js";

/**
 * A matrix [rows, columns] whose shorter side is orthonormal times `gain` (Saxe et al., arXiv 1312.6120): normally
 * distributed vectors, made orthogonal by the Gram-Schmidt process. Such vectors are far enough from dependent that
 * float64 does it in one go.
 */
export function* orthogonal(
  rows: number,
  columns: number,
  gain: number,
  random: RandomGenerator,
): Generator<void, Float32Array, void> {
  const values = new Float32Array(rows * columns);
  const count = Math.min(rows, columns);
  const length = Math.max(rows, columns);
  const basis = new Float64Array(count * length);
  for (let v = 0; v < count; v++) {
    const vector = basis.subarray(v * length, (v + 1) * length);
    for (let i = 0; i < length; i++) vector[i] = normal(random);
    const sum = new Float64Array(length);
    for (let other = 0; other < v; other++) addScaled(sum, basis, other * length, dot(vector, basis, other * length));
    for (let i = 0; i < length; i++) vector[i] = (vector[i] as number) - (sum[i] as number);
    const scale = 1 / Math.sqrt(dot(vector, vector, 0));
    for (let i = 0; i < length; i++) vector[i] = (vector[i] as number) * scale;
    yield;
  }
  for (let v = 0; v < count; v++) {
    for (let i = 0; i < length; i++) {
      values[rows >= columns ? i * columns + v : v * columns + i] = gain * (basis[v * length + i] as number);
    }
  }
  return values;
}

/** The product with the vector that starts at `at`, in four sums that do not wait for each other. */
function dot(vector: Float64Array, others: Float64Array, at: number): number {
  const sums: [number, number, number, number] = [0, 0, 0, 0];
  let i = 0;
  for (; i + 3 < vector.length; i += 4) {
    sums[0] += (vector[i] as number) * (others[at + i] as number);
    sums[1] += (vector[i + 1] as number) * (others[at + i + 1] as number);
    sums[2] += (vector[i + 2] as number) * (others[at + i + 2] as number);
    sums[3] += (vector[i + 3] as number) * (others[at + i + 3] as number);
  }
  for (; i < vector.length; i++) sums[0] += (vector[i] as number) * (others[at + i] as number);
  return sums[0] + sums[1] + (sums[2] + sums[3]);
}

function addScaled(sum: Float64Array, others: Float64Array, at: number, factor: number): void {
  for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + factor * (others[at + i] as number);
}

/** A standard normal number (Box and Muller, 1958). */
export function normal(random: RandomGenerator): number {
  return Math.sqrt(-2 * Math.log(1 - random.uniform())) * Math.cos(2 * Math.PI * random.uniform());
}
