// Attention in its plainest form, forward and back: the definition that the C kernels are tested against. Each head is a part of the
// width; a sequence's state holds what earlier tokens left.

import { type Floats, type RowRange, type Rows, zeros } from "./operations.js";

/** Queries, keys and values, in `heads` parts of their width. */
export interface HeadRows {
  readonly query: Rows;
  readonly key: Rows;
  readonly value: Rows;
  readonly heads: number;
}

/** Offsets of a cache of keys and values in a state block. */
export interface CacheOffsets {
  readonly count: number;
  readonly keys: number;
  readonly values: number;
  readonly capacity: number;
}

/** Softmax attention, arXiv 1706.03762, equation 1, each token over itself and those before it. */
export function attention(inputs: HeadRows, ranges: readonly RowRange[], cache: CacheOffsets): Rows {
  const { query, key, value, heads } = inputs;
  const { width } = query;
  const out = zeros(query.rows, width, query.values);
  for (const range of ranges) {
    const { start, count, state, nextState } = range;
    for (let head = 0; head < heads; head++) {
      const size = width / heads;
      const cached = state[cache.count + head] as number;
      for (let t = 0; t < count; t++) {
        const weights = softmaxOver(inputs, range, cache, head, t);
        for (let c = head * size; c < (head + 1) * size; c++) {
          let sum = 0;
          weights.forEach((weight, s) => {
            sum += weight * elementOf(value, range, cache.values, cached, s, c);
          });
          out.values[(start + t) * width + c] = sum;
        }
      }
      const end = Math.min(cached + count, cache.capacity);
      for (let s = 0; s < end; s++) {
        for (let c = head * size; c < (head + 1) * size; c++) {
          nextState[cache.keys + s * width + c] = elementOf(key, range, cache.keys, cached, s, c);
          nextState[cache.values + s * width + c] = elementOf(value, range, cache.values, cached, s, c);
        }
      }
      nextState[cache.count + head] = end;
    }
  }
  return out;
}

/** The gradient of attention for the queries, keys and values of these tokens. */
export function attentionGradient(
  inputs: HeadRows,
  gradient: Rows,
  ranges: readonly RowRange[],
  cache: CacheOffsets,
): { query: Rows; key: Rows; value: Rows } {
  const { query, key, value, heads } = inputs;
  const { width } = query;
  const result = {
    query: zeros(query.rows, width, query.values),
    key: zeros(query.rows, width, query.values),
    value: zeros(query.rows, width, query.values),
  };
  const add = (to: Floats, at: number, amount: number) => {
    to[at] = (to[at] as number) + amount;
  };
  for (const range of ranges) {
    const { start, count, state } = range;
    for (let head = 0; head < heads; head++) {
      const size = width / heads;
      const scale = 1 / Math.sqrt(size);
      const channels = Array.from({ length: size }, (_, i) => head * size + i);
      const cached = state[cache.count + head] as number;
      for (let t = 0; t < count; t++) {
        const row = (start + t) * width;
        const weights = softmaxOver(inputs, range, cache, head, t);
        // Of each weight, and of all together, since they sum to 1.
        const dweights = weights.map((_, s) =>
          channels.reduce(
            (sum, c) =>
              sum + (gradient.values[row + c] as number) * elementOf(value, range, cache.values, cached, s, c),
            0,
          ),
        );
        const together = weights.reduce((sum, weight, s) => sum + weight * (dweights[s] as number), 0);
        weights.forEach((weight, s) => {
          const dscore = scale * weight * ((dweights[s] as number) - together);
          for (const c of channels) {
            add(result.query.values, row + c, dscore * elementOf(key, range, cache.keys, cached, s, c));
            if (s < cached) continue;
            const at = (start + s - cached) * width + c;
            add(result.key.values, at, dscore * (query.values[row + c] as number));
            add(result.value.values, at, weight * (gradient.values[row + c] as number));
          }
        });
      }
    }
  }
  return result;
}

/** The weights that token `t` of a range puts on all tokens up to it. */
function softmaxOver(
  { query, key, heads }: HeadRows,
  range: RowRange,
  cache: CacheOffsets,
  head: number,
  t: number,
): number[] {
  const { width } = query;
  const size = width / heads;
  const cached = range.state[cache.count + head] as number;
  const scores = Array.from({ length: cached + t + 1 }, (_, s) => {
    let sum = 0;
    for (let c = head * size; c < (head + 1) * size; c++) {
      sum += (query.values[(range.start + t) * width + c] as number) * elementOf(key, range, cache.keys, cached, s, c);
    }
    return sum / Math.sqrt(size);
  });
  const most = Math.max(...scores);
  const weights = scores.map((score) => Math.exp(score - most));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

/** An element of token `s` of a sequence: from its state, or from the rows of this pass. */
function elementOf(rows: Rows, range: RowRange, offset: number, cached: number, s: number, c: number): number {
  return (
    s < cached ? range.state[offset + s * rows.width + c] : rows.values[(range.start + s - cached) * rows.width + c]
  ) as number;
}

/** Offsets of the sums of linear attention in a state block. */
export interface SumOffsets {
  readonly sums: number;
  readonly normalizer: number;
}

/** Linear attention, arXiv 2006.16236, equations 18 to 20: out = query . S / query . z with S and z sums over tokens so far. */
export function linearAttention(inputs: HeadRows, ranges: readonly RowRange[], offsets: SumOffsets): Rows {
  const out = zeros(inputs.query.rows, inputs.query.width, inputs.query.values);
  walkSums(inputs, ranges, offsets, ({ row, channels, sums, normalizer, nextState, head, last }) => {
    const share = 1 / dotOf(inputs.query, row, channels, normalizer);
    channels.forEach((c, j) => {
      let sum = 0;
      for (let i = 0; i < channels.length; i++) {
        sum += (inputs.query.values[row + (channels[i] as number)] as number) * (sums[i]?.[j] as number);
      }
      out.values[row + c] = sum * share;
    });
    if (!last) return;
    const size = channels.length;
    nextState.set(sums.flat(), offsets.sums + head * size * size);
    nextState.set(normalizer, offsets.normalizer + head * size);
  });
  return out;
}

/** The gradient of linear attention: for the queries walking forward, for keys and values walking back. */
export function linearAttentionGradient(
  inputs: HeadRows,
  result: Rows,
  gradient: Rows,
  ranges: readonly RowRange[],
  offsets: SumOffsets,
): { query: Rows; key: Rows; value: Rows } {
  const { query, key, value, heads } = inputs;
  const { width } = query;
  const size = width / heads;
  const out = {
    query: zeros(query.rows, width, query.values),
    key: zeros(query.rows, width, query.values),
    value: zeros(query.rows, width, query.values),
  };
  /** For each row and head: 1 / query . z, and the gradient of query . z. */
  const shares = new Float64Array(query.rows * heads);
  const throughs = new Float64Array(query.rows * heads);
  walkSums(inputs, ranges, offsets, ({ row, channels, sums, normalizer, head }) => {
    const share = 1 / dotOf(query, row, channels, normalizer);
    const product = channels.reduce(
      (sum, c) => sum + (gradient.values[row + c] as number) * (result.values[row + c] as number),
      0,
    );
    shares[(row / width) * heads + head] = share;
    throughs[(row / width) * heads + head] = -share * product;
    channels.forEach((c, i) => {
      const sum = dotOf(gradient, row, channels, sums[i] as number[]);
      out.query.values[row + c] = share * sum - share * product * (normalizer[i] as number);
    });
  });
  for (const { start, count } of ranges) {
    for (let head = 0; head < heads; head++) {
      const channels = Array.from({ length: size }, (_, i) => head * size + i);
      const dsums = channels.map(() => new Array<number>(size).fill(0));
      const dnormalizer = new Array<number>(size).fill(0);
      for (let t = start + count - 1; t >= start; t--) {
        const row = t * width;
        const share = shares[t * heads + head] as number;
        channels.forEach((c, i) => {
          const q = query.values[row + c] as number;
          dnormalizer[i] = (dnormalizer[i] as number) + (throughs[t * heads + head] as number) * q;
          channels.forEach((d, j) => {
            const list = dsums[i] as number[];
            list[j] = (list[j] as number) + q * share * (gradient.values[row + d] as number);
          });
        });
        channels.forEach((c, i) => {
          out.key.values[row + c] = dotOf(value, row, channels, dsums[i] as number[]) + (dnormalizer[i] as number);
          const column = dsums.map((list) => list[i] as number);
          out.value.values[row + c] = dotOf(key, row, channels, column);
        });
      }
    }
  }
  return out;
}

interface Walked {
  /** Where the row of the token begins. */
  readonly row: number;
  readonly head: number;
  readonly channels: readonly number[];
  /** With the token's own key and value. */
  readonly sums: readonly number[][];
  readonly normalizer: readonly number[];
  readonly nextState: Floats;
  readonly last: boolean;
}

function walkSums(
  { query, key, value, heads }: HeadRows,
  ranges: readonly RowRange[],
  offsets: SumOffsets,
  visit: (walked: Walked) => void,
): void {
  const { width } = query;
  const size = width / heads;
  for (const { start, count, state, nextState } of ranges) {
    for (let head = 0; head < heads; head++) {
      const channels = Array.from({ length: size }, (_, i) => head * size + i);
      const from = offsets.sums + head * size * size;
      const sums = channels.map((_, i) => Array.from(state.subarray(from + i * size, from + (i + 1) * size)));
      const normalizer = Array.from(
        state.subarray(offsets.normalizer + head * size, offsets.normalizer + (head + 1) * size),
      );
      for (let t = 0; t < count; t++) {
        const row = (start + t) * width;
        channels.forEach((c, i) => {
          const k = key.values[row + c] as number;
          normalizer[i] = (normalizer[i] as number) + k;
          channels.forEach((d, j) => {
            const list = sums[i] as number[];
            list[j] = (list[j] as number) + k * (value.values[row + d] as number);
          });
        });
        visit({ row, head, channels, sums, normalizer, nextState, last: t === count - 1 });
      }
    }
  }
}

function dotOf(rows: Rows, row: number, channels: readonly number[], other: readonly number[]): number {
  return channels.reduce((sum, c, i) => sum + (rows.values[row + c] as number) * (other[i] as number), 0);
}

/** x plus the table's row for each token's position. */
export function addPosition(x: Rows, table: Rows, ranges: readonly RowRange[], offset: number): Rows {
  const out = zeros(x.rows, x.width, x.values);
  for (const range of ranges) {
    for (let t = range.start; t < range.start + range.count; t++) {
      for (let c = 0; c < x.width; c++) {
        const place = table.values[positionOf(range, t, offset, table.rows) * x.width + c] as number;
        out.values[t * x.width + c] = (x.values[t * x.width + c] as number) + place;
      }
    }
    const after = (range.state[offset] as number) + range.count;
    for (let c = 0; c < x.width; c++) range.nextState[offset + c] = after;
  }
  return out;
}

/** The gradient of addPosition for its table. */
export function positionGradient(gradient: Rows, ranges: readonly RowRange[], offset: number, rows: number): Rows {
  const out = zeros(rows, gradient.width, gradient.values);
  for (const range of ranges) {
    for (let t = range.start; t < range.start + range.count; t++) {
      const position = positionOf(range, t, offset, rows);
      for (let c = 0; c < gradient.width; c++) {
        const at = position * gradient.width + c;
        out.values[at] = (out.values[at] as number) + (gradient.values[t * gradient.width + c] as number);
      }
    }
  }
  return out;
}

/** Beyond the table its last row stands for all. */
function positionOf({ state, start }: RowRange, t: number, offset: number, rows: number): number {
  return Math.min((state[offset] as number) + t - start, rows - 1);
}
