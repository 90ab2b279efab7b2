// Matrices of numbers as the plain forms of operations take and give them. Matrices are row-major; the element type of what an
// operation gives is that of what it is given: float32, or float64 where gradients are checked.

export type Floats = Float32Array | Float64Array;

/** A matrix: `rows` rows of `width` floats. */
export interface Rows {
  readonly rows: number;
  readonly width: number;
  readonly values: Floats;
}

/** A weight matrix. */
export interface MatrixRows extends Rows {
  /** Whether it is in blocks of integers, whose kernels round the rows that they multiply to blocks, too. */
  readonly isInBlocks: boolean;
}

/** Consecutive rows of one sequence: `count` rows from row `start`, and that sequence's state block before and after them. */
export interface RowRange {
  readonly start: number;
  readonly count: number;
  readonly state: Floats;
  readonly nextState: Floats;
}

/** What a pass is run on. */
export interface PassInputs {
  readonly ranges: readonly RowRange[];
  readonly tokens: readonly number[];
  /** Numbers of the selected rows. */
  readonly selected: readonly number[];
  /** A token id for each selected row: what should have been predicted there. */
  readonly targets: readonly number[];
  /** Of dropout. */
  readonly seed: number;
  /** Values that other graphs have computed, where this one is a part. */
  readonly given?: readonly Rows[];
  /** Targets of the whole step, where the pass is a part of one that several processes share; by default those of the pass. */
  readonly targetCount?: number;
  /** Rows of tokens of that step which come before those of the pass. */
  readonly firstRow?: number;
}

/** A matrix of zeros, of the element type of `like`. */
export function zeros(rows: number, width: number, like: Floats): Rows {
  const length = rows * width;
  return { rows, width, values: like instanceof Float64Array ? new Float64Array(length) : new Float32Array(length) };
}

/** Adds to an element. */
export function addAt(to: Floats, at: number, amount: number): void {
  to[at] = (to[at] as number) + amount;
}

/** out[t] = table[indices[t]] */
export function gatherRows(table: Rows, indices: readonly number[]): Rows {
  const out = zeros(indices.length, table.width, table.values);
  indices.forEach((index, t) => {
    out.values.set(table.values.subarray(index * table.width, (index + 1) * table.width), t * table.width);
  });
  return out;
}

/** out[v] = sum over the t with indices[t] = v of x[t] */
export function scatterAdd(x: Rows, indices: readonly number[], rows: number): Rows {
  const out = zeros(rows, x.width, x.values);
  indices.forEach((index, t) => {
    for (let c = 0; c < x.width; c++) addAt(out.values, index * x.width + c, x.values[t * x.width + c] as number);
  });
  return out;
}

/** The row before row `t`; at the start of a range that of the state. */
export function rowBefore(x: Rows, { start, state }: RowRange, offset: number, t: number): Floats {
  return t > start ? x.values.subarray((t - 1) * x.width, t * x.width) : state.subarray(offset, offset + x.width);
}

/** Mean of a part of a row, and 1 / sqrt(variance + epsilon), with the biased variance. */
export function momentsOf(
  { values }: Rows,
  start: number,
  count: number,
  epsilon: number,
): { mean: number; scale: number } {
  let sum = 0;
  for (let i = start; i < start + count; i++) sum += values[i] as number;
  const mean = sum / count;
  let squares = 0;
  for (let i = start; i < start + count; i++) squares += ((values[i] as number) - mean) ** 2;
  return { mean, scale: 1 / Math.sqrt(squares / count + epsilon) };
}
