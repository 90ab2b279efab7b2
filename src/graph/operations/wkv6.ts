// The recurrence with a matrix for each head as its state ("Eagle and Finch", arXiv 2404.05892, section 4): it sums up outer products of
// keys and values, which fade at a rate of each key channel's own.

import { type RowNode, shapeOf } from "../graph.js";
import { operation } from "../operation.js";
import { addAt, type Floats, type RowRange, type Rows, zeros } from "../rows.js";
import { requireState, requireTokens, requireWidth } from "./checks.js";

/** Rows by the names that wkv6 has for them. */
interface Operands {
  readonly decay: Rows;
  readonly receptance: Rows;
  readonly key: Rows;
  readonly value: Rows;
  readonly bonus: Rows;
  /** Offset of the state in a sequence's block. */
  readonly matrix: number;
  readonly heads: number;
}

/**
 * For each head, with S [size, size] its state, whose rows are keys: out = r (S + (u k) vᵀ), then S = diag(w) S + k vᵀ. Leaves S in the
 * state, head after head. The decay w, which is what remains of a row of S, is a row for each token (Finch), or one for all (Eagle); the
 * bonus u of the current token is one for all.
 */
export const wkv6 = operation({
  name: "wkv6",
  // Kernels see by the rows of the first input whether they are one or many.
  inputs: ["decay", "receptance", "key", "value", "bonus"],
  states: ["matrix"],
  attributes: { heads: "count" },
  outputs: ["result"],
  sharedBy: "heads",
  shape({ decay, receptance, key, value, bonus, matrix, heads }) {
    const { width } = receptance;
    requireTokens("wkv6", receptance, key, value, ...(decay.rows === 1 ? [] : [decay]));
    requireWidth("wkv6", receptance, key, value, decay, bonus);
    if (bonus.rows !== 1) throw new RangeError("wkv6: expected one row of bonuses for all tokens");
    if (!(heads > 0) || width % heads !== 0) throw new RangeError(`wkv6: rows of ${width} floats in ${heads} heads`);
    requireState("wkv6", (width * width) / heads, matrix);
    return { result: receptance };
  },
  reference(operands, { ranges }) {
    const { decay, receptance, key, value, bonus } = operands;
    const out = zeros(receptance.rows, receptance.width, receptance.values);
    forEachHead(operands, ranges, ({ start, count, nextState }, channels, state) => {
      for (let t = start; t < start + count; t++) {
        for (const [i, c] of channels.entries()) {
          const [r, k] = [at(receptance, t, c), at(key, t, c)];
          const row = state[i] as number[];
          for (const [j, d] of channels.entries()) {
            const [before, added] = [row[j] as number, k * at(value, t, d)];
            addAt(out.values, t * out.width + d, r * (before + at(bonus, t, c) * added));
            row[j] = at(decay, t, c) * before + added;
          }
        }
      }
      const size = channels.length;
      nextState.set(state.flat(), operands.matrix + (channels[0] as number) * size);
    });
    return { result: out };
  },
  gradient({ operands, gradients }, context) {
    const { decay, receptance, key, value, bonus, matrix } = operands;
    const d = wkv6Gradient.apply({
      ...operands,
      decay: context.value(decay),
      receptance: context.value(receptance),
      key: context.value(key),
      value: context.value(value),
      bonus: context.value(bonus),
      gradient: gradients.result as RowNode,
    });
    context.add(decay, () => d.decay);
    context.add(receptance, () => d.receptance);
    context.add(key, () => d.key);
    context.add(value, () => d.value);
    context.add(bonus, () => d.bonus);
    context.addState(matrix, () => d.matrix);
  },
});

/** A state is kept for the kernel after every so many tokens, and heads are no wider than this (kernels/wkv6_gradient.c). */
const tokensBetweenStates = 16;
const widestHead = 256;

/**
 * The gradients of wkv6: with g the gradient of out, and D that of S after token t, walking back from D = 0:
 * dr = S g + u k (v·g), dk = D v + r u (v·g), dv = Dᵀ k + (r·u k) g, du = r k (v·g), and the rows of D times those of S for dw, where S is the
 * state before the token; then D = diag(w) D + r gᵀ. Decay and bonus get a row for each token, `matrix` the sum over sequences.
 */
const wkv6Gradient = operation({
  name: "wkv6Gradient",
  inputs: ["decay", "receptance", "key", "value", "bonus", "gradient"],
  states: ["matrix"],
  attributes: { heads: "count" },
  outputs: ["decay", "receptance", "key", "value", "bonus", "matrix", "kept"],
  alwaysWritten: ["kept"],
  shape({ receptance, heads }) {
    const { width } = receptance;
    if (width / heads > widestHead) {
      throw new RangeError(`wkv6: heads of ${width / heads} channels, of which at most ${widestHead} can be learned`);
    }
    const floats = (width * width) / heads;
    return {
      decay: receptance,
      receptance,
      key: receptance,
      value: receptance,
      bonus: receptance,
      matrix: { rows: 1, width: floats },
      kept: shapeOf("tokens", Math.ceil(floats / tokensBetweenStates)),
    };
  },
  reference(operands, { ranges }) {
    const { decay, receptance, key, value, bonus, gradient, heads } = operands;
    const { rows, width } = receptance;
    const like = () => zeros(rows, width, receptance.values);
    const d = { decay: like(), receptance: like(), key: like(), value: like(), bonus: like() };
    const matrix = zeros(1, (width * width) / heads, receptance.values);
    forEachHead(operands, ranges, ({ start, count }, channels, state) => {
      const before: number[][][] = [];
      for (let t = start; t < start + count; t++) {
        before.push(state.map((row) => [...row]));
        for (const [i, c] of channels.entries()) {
          const row = state[i] as number[];
          for (const [j, e] of channels.entries()) {
            row[j] = at(decay, t, c) * (row[j] as number) + at(key, t, c) * at(value, t, e);
          }
        }
      }
      const later = state.map((row) => row.map(() => 0));
      for (let t = start + count - 1; t >= start; t--) {
        let along = 0;
        for (const c of channels) along += at(value, t, c) * at(gradient, t, c);
        for (const [i, c] of channels.entries()) {
          const [r, w, k, u] = [at(receptance, t, c), at(decay, t, c), at(key, t, c), at(bonus, t, c)];
          const place = t * width + c;
          addAt(d.receptance.values, place, u * k * along);
          addAt(d.key.values, place, r * u * along);
          addAt(d.bonus.values, place, r * k * along);
          const row = later[i] as number[];
          for (const [j, e] of channels.entries()) {
            const s = before[t - start]?.[i]?.[j] as number;
            const [g, D] = [at(gradient, t, e), row[j] as number];
            addAt(d.receptance.values, place, s * g);
            addAt(d.decay.values, place, s * D);
            addAt(d.key.values, place, D * at(value, t, e));
            addAt(d.value.values, t * width + e, D * k + r * u * k * g);
            row[j] = w * D + r * g;
          }
        }
      }
      const first = (channels[0] as number) * channels.length;
      for (const [n, amount] of later.flat().entries()) addAt(matrix.values, first + n, amount);
    });
    return { ...d, matrix };
  },
  gradient: { none: "only gradients are built of it" },
});

/** Calls `visit` with the channels of each head, and a copy of its state, in each sequence. */
function forEachHead(
  { receptance, heads, matrix }: Operands,
  ranges: readonly RowRange[],
  visit: (range: RowRange, channels: readonly number[], state: number[][]) => void,
): void {
  const size = receptance.width / heads;
  for (const range of ranges) {
    for (let head = 0; head < heads; head++) {
      const channels = Array.from({ length: size }, (_, i) => head * size + i);
      const rowOf = (c: number): Floats => range.state.subarray(matrix + c * size, matrix + (c + 1) * size);
      visit(
        range,
        channels,
        channels.map((c) => Array.from(rowOf(c))),
      );
    }
  }
}

/** An element, where one row may stand for all. */
function at({ rows, width, values }: Rows, t: number, c: number): number {
  return values[(rows === 1 ? 0 : t * width) + c] as number;
}
