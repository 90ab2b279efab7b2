// The generalized delta rule (arXiv 2503.14456, section 3): each head keeps a matrix of values by keys. A token makes it decay, removes
// what it holds along one direction, and adds the outer product of a value and a key.

import type { RowNode } from "../graph.js";
import { operation } from "../operation.js";
import { addAt, type Rows, zeros } from "../rows.js";
import { requireState, requireTokens, requireWidth } from "./checks.js";

/** The widest head that kernels have room for (wkv7_most_channels in kernels/wkv7.c). */
export const mostChannels = 128;

/** Tokens between two matrices that the kernel of the gradient keeps (wkv7_chunk in kernels/wkv7_gradient.c). */
const keptEvery = 16;

const inputs = ["receptance", "decay", "key", "value", "removal", "replacement"] as const;
type Input = (typeof inputs)[number];

/**
 * For each head, with S its matrix [values, keys]:
 *   S = S diag(decay) - (S removal) replacementᵀ + value keyᵀ
 *   result = S receptance
 * Rows are [tokens, width], each head `width / heads` of their channels. Leaves S in the state [heads, width / heads, width / heads].
 */
export const wkv7 = operation({
  name: "wkv7",
  inputs,
  states: ["matrix"],
  attributes: { heads: "count" },
  outputs: ["result"],
  sharedBy: "heads",
  shape({ heads, matrix, ...rows }) {
    const { receptance } = rows;
    const size = receptance.width / heads;
    if (!Number.isInteger(size) || size > mostChannels) {
      throw new RangeError(
        `wkv7: rows of ${receptance.width} floats in ${heads} heads; a head has at most ${mostChannels}`,
      );
    }
    for (const name of inputs) {
      requireTokens("wkv7", rows[name]);
      requireWidth("wkv7", receptance, rows[name]);
    }
    requireState("wkv7", receptance.width * size, matrix);
    return { result: receptance };
  },
  reference({ heads, matrix, ...rows }, { ranges }) {
    const { receptance } = rows;
    const size = receptance.width / heads;
    const out = zeros(receptance.rows, receptance.width, receptance.values);
    for (const { start, count, state, nextState } of ranges) {
      for (let row = 0; row < receptance.width; row++) {
        const s = Float64Array.from(state.subarray(matrix + row * size, matrix + (row + 1) * size));
        for (let t = start; t < start + count; t++) {
          const at = headAt(rows, t, row, size);
          step(s, at);
          let sum = 0;
          for (let j = 0; j < size; j++) sum += (s[j] as number) * at("receptance", j);
          out.values[t * receptance.width + row] = sum;
        }
        nextState.set(s, matrix + row * size);
      }
    }
    return { result: out };
  },
  gradient({ operands, gradients }, context) {
    const values = Object.fromEntries(inputs.map((name) => [name, context.value(operands[name])])) as Named<RowNode>;
    const gradient = gradients.result as RowNode;
    const outputs = wkv7Gradient.apply({ ...operands, ...values, gradient });
    for (const name of inputs) context.add(operands[name], () => outputs[name]);
    context.addState(operands.matrix, () => outputs.state);
  },
});

type Named<T> = Record<Input, T>;

/** Reads an input at channel `j` of the head that has this row of its matrix. */
type HeadReader = (name: Input, j: number) => number;

function headAt(rows: Named<Rows>, token: number, row: number, size: number): HeadReader {
  const first = token * rows.key.width + row - (row % size);
  const own = row % size;
  return (name, j) => rows[name].values[first + (name === "value" ? own : j)] as number;
}

/** Takes one row of a head's matrix from one token to the next; gives what was removed. */
function step(s: Float64Array, at: HeadReader): number {
  let removed = 0;
  for (let j = 0; j < s.length; j++) removed += (s[j] as number) * at("removal", j);
  for (let j = 0; j < s.length; j++) {
    s[j] = (s[j] as number) * at("decay", j) - removed * at("replacement", j) + at("value", j) * at("key", j);
  }
  return removed;
}

/**
 * The gradients of wkv7. Row i of S' = S diag(w) - u bᵀ + v kᵀ, with u = S a, takes part by itself. With g its gradient, of which a
 * token's own result has r dresult[i] and the token after g diag(w) + du aᵀ: dr = S'ᵀ dresult, dv = g k, dk = gᵀ v, db = -gᵀ u,
 * du = -g b, da = Sᵀ du, dw = the column sums of g ⊙ S. `kept` is room for the kernel; `state` is summed over sequences.
 */
const wkv7Gradient = operation({
  name: "wkv7Gradient",
  inputs: [...inputs, "gradient"],
  states: ["matrix"],
  attributes: { heads: "count" },
  outputs: [...inputs, "kept", "state"],
  alwaysWritten: [...inputs, "kept"],
  shape({ receptance, heads }) {
    const floats = receptance.width * (receptance.width / heads);
    return {
      receptance,
      decay: receptance,
      key: receptance,
      value: receptance,
      removal: receptance,
      replacement: receptance,
      kept: { rows: receptance.rows, width: Math.ceil(floats / keptEvery) },
      state: { rows: 1, width: floats },
    };
  },
  reference({ heads, matrix, gradient, ...rows }, { ranges }) {
    const { width, values } = rows.key;
    const size = width / heads;
    const result = Object.fromEntries(inputs.map((name) => [name, zeros(rows.key.rows, width, values)])) as Named<Rows>;
    const dstate = zeros(1, width * size, values);
    for (const { start, count, state } of ranges) {
      for (let row = 0; row < width; row++) {
        const states = [Float64Array.from(state.subarray(matrix + row * size, matrix + (row + 1) * size))];
        const removed: number[] = [];
        for (let t = start; t < start + count; t++) {
          const s = (states.at(-1) as Float64Array).slice();
          removed.push(step(s, headAt(rows, t, row, size)));
          states.push(s);
        }
        const g = new Float64Array(size);
        for (let t = start + count - 1; t >= start; t--) {
          const at = headAt(rows, t, row, size);
          const before = states[t - start] as Float64Array;
          const after = states[t - start + 1] as Float64Array;
          const given = gradient.values[t * width + row] as number;
          const first = t * width + row - (row % size);
          const add = (name: Input, j: number, amount: number) => void addAt(result[name].values, first + j, amount);
          let dremoved = 0;
          for (let j = 0; j < size; j++) {
            addAt(g, j, given * at("receptance", j));
            dremoved -= (g[j] as number) * at("replacement", j);
          }
          for (let j = 0; j < size; j++) {
            const own = g[j] as number;
            add("receptance", j, given * (after[j] as number));
            add("value", row % size, own * at("key", j));
            add("key", j, own * at("value", j));
            add("replacement", j, -own * (removed[t - start] as number));
            add("removal", j, dremoved * (before[j] as number));
            add("decay", j, own * (before[j] as number));
            g[j] = own * at("decay", j) + dremoved * at("removal", j);
          }
        }
        g.forEach((value, j) => void addAt(dstate.values, row * size + j, value));
      }
    }
    return { ...result, state: dstate };
  },
  gradient: { none: "only gradients are built of it" },
});
