// Recurrent networks in their plainest form, forward and back: the definition that the C kernels are tested against.

import { type Floats, type RowRange, type Rows, zeros } from "./operations.js";

/** Each token's row before; at the start of a range that of the state. */
export function previousRows(x: Rows, ranges: readonly RowRange[], offset: number): Rows {
  const out = zeros(x.rows, x.width, x.values);
  for (const range of ranges) {
    for (let t = range.start; t < range.start + range.count; t++) {
      out.values.set(rowBefore(x, range, offset, t), t * x.width);
    }
  }
  return out;
}

/** Elman, Cognitive Science 14, 1990: h[t] = tanh(x[t] + U h[t-1]). */
export function elman(x: Rows, weight: Rows, ranges: readonly RowRange[], offset: number): Rows {
  const out = zeros(x.rows, x.width, x.values);
  for (const range of ranges) {
    for (let t = range.start; t < range.start + range.count; t++) {
      const from = product(weight, rowBefore(out, range, offset, t));
      for (let c = 0; c < x.width; c++) {
        out.values[t * x.width + c] = Math.tanh((x.values[t * x.width + c] as number) + (from[c] as number));
      }
    }
    range.nextState.set(rowBefore(out, range, offset, range.start + range.count), offset);
  }
  return out;
}

/** The gradient for x: (dh[t] + U^T dx[t+1]) (1 - h[t]^2). */
export function elmanGradient(weight: Rows, result: Rows, gradient: Rows, ranges: readonly RowRange[]): Rows {
  const out = zeros(result.rows, result.width, result.values);
  const { width } = result;
  for (const { start, count } of ranges) {
    let later = new Float64Array(width);
    for (let t = start + count - 1; t >= start; t--) {
      for (let c = 0; c < width; c++) {
        const h = result.values[t * width + c] as number;
        const dh = (gradient.values[t * width + c] as number) + (later[c] as number);
        out.values[t * width + c] = dh * (1 - h * h);
      }
      later = transposedProduct(weight, out.values.subarray(t * width, (t + 1) * width));
    }
  }
  return out;
}

/** Rows and matrices of a gated recurrent unit: of its update gate, its reset gate, its candidate. */
export interface GateInputs {
  readonly rows: readonly [Rows, Rows, Rows];
  readonly weights: readonly [Rows, Rows, Rows];
}

/** What a gated recurrent unit gives; `left` is what the reset gate leaves of the state before. */
export interface GateValues {
  readonly state: Rows;
  readonly update: Rows;
  readonly reset: Rows;
  readonly candidate: Rows;
  readonly left: Rows;
}

/** arXiv 1406.1078, equations 5 to 8. */
export function gru({ rows, weights }: GateInputs, ranges: readonly RowRange[], offset: number): GateValues {
  const [first] = rows;
  const { width } = first;
  const make = () => zeros(first.rows, width, first.values);
  const values = { state: make(), update: make(), reset: make(), candidate: make(), left: make() };
  const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
  for (const range of ranges) {
    for (let t = range.start; t < range.start + range.count; t++) {
      const before = Float64Array.from(rowBefore(values.state, range, offset, t));
      const [fromUpdate, fromReset] = [product(weights[0], before), product(weights[1], before)];
      for (let c = 0; c < width; c++) {
        const at = t * width + c;
        values.update.values[at] = sigmoid((rows[0].values[at] as number) + (fromUpdate[c] as number));
        values.reset.values[at] = sigmoid((rows[1].values[at] as number) + (fromReset[c] as number));
        values.left.values[at] = (values.reset.values[at] as number) * (before[c] as number);
      }
      const fromLeft = product(weights[2], values.left.values.subarray(t * width, (t + 1) * width));
      for (let c = 0; c < width; c++) {
        const at = t * width + c;
        const z = values.update.values[at] as number;
        const n = Math.tanh((rows[2].values[at] as number) + (fromLeft[c] as number));
        values.candidate.values[at] = n;
        values.state.values[at] = z * (before[c] as number) + (1 - z) * n;
      }
    }
    range.nextState.set(rowBefore(values.state, range, offset, range.start + range.count), offset);
  }
  return values;
}

/** The gradients for the rows of both gates and the candidate, walking back. */
export function gruGradient(
  weights: GateInputs["weights"],
  { state, update, reset, candidate }: Omit<GateValues, "left">,
  gradient: Rows,
  ranges: readonly RowRange[],
  offset: number,
): { update: Rows; reset: Rows; candidate: Rows } {
  const { width } = state;
  const make = () => zeros(state.rows, width, state.values);
  const out = { update: make(), reset: make(), candidate: make() };
  for (const range of ranges) {
    let carried = new Float64Array(width);
    for (let t = range.start + range.count - 1; t >= range.start; t--) {
      const before = rowBefore(state, range, offset, t);
      const row = (rows: Rows) => rows.values.subarray(t * width, (t + 1) * width);
      const kept = new Float64Array(width);
      for (let c = 0; c < width; c++) {
        const at = t * width + c;
        const dh = (gradient.values[at] as number) + (carried[c] as number);
        const z = update.values[at] as number;
        const n = candidate.values[at] as number;
        out.update.values[at] = dh * ((before[c] as number) - n) * z * (1 - z);
        out.candidate.values[at] = dh * (1 - z) * (1 - n * n);
        kept[c] = dh * z;
      }
      const dleft = transposedProduct(weights[2], row(out.candidate));
      for (let c = 0; c < width; c++) {
        const at = t * width + c;
        const r = reset.values[at] as number;
        out.reset.values[at] = (dleft[c] as number) * (before[c] as number) * r * (1 - r);
        kept[c] = (kept[c] as number) + (dleft[c] as number) * r;
      }
      const throughUpdate = transposedProduct(weights[0], row(out.update));
      const throughReset = transposedProduct(weights[1], row(out.reset));
      carried = kept.map((value, c) => value + (throughUpdate[c] as number) + (throughReset[c] as number));
    }
  }
  return out;
}

function rowBefore(x: Rows, { start, state }: RowRange, offset: number, t: number): Floats {
  return t > start ? x.values.subarray((t - 1) * x.width, t * x.width) : state.subarray(offset, offset + x.width);
}

function product(weight: Rows, x: ArrayLike<number>): Float64Array {
  return Float64Array.from({ length: weight.rows }, (_, o) => {
    let sum = 0;
    for (let i = 0; i < weight.width; i++) sum += (weight.values[o * weight.width + i] as number) * (x[i] as number);
    return sum;
  });
}

function transposedProduct(weight: Rows, x: ArrayLike<number>): Float64Array<ArrayBuffer> {
  const out = new Float64Array(weight.width);
  for (let o = 0; o < weight.rows; o++) {
    for (let i = 0; i < weight.width; i++) {
      out[i] = (out[i] as number) + (weight.values[o * weight.width + i] as number) * (x[o] as number);
    }
  }
  return out;
}
