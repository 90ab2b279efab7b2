// The average of the Attention Free Transformer, forward and back. arXiv 2105.14103, equation 1, causal: result[t] = sum over s
// <= t of e^(key[s] + bias) value[s], over the sum of the weights; the bias of a token `distance` back is bias[row][distance], 0
// from the window on. A sequence's state has the last tokens' keys and values in a ring, and sums over those before.

import { type RowNode, shapeOf, type WeightNode } from "../../graph/graph.js";
import type { GraphBuilder } from "../../graph/graph-builder.js";
import { operation } from "../../graph/operation.js";
import { addAt, type RowRange, type Rows, zeros } from "../../graph/rows.js";
import { requireHeads } from "./heads.js";

/** The kernel takes them one after another. */
const states = ["count", "keys", "values", "numerator", "denominator", "maxExponent"] as const;

const aft = operation({
  name: "aft",
  inputs: ["key", "value"],
  matrices: { bias: "table" },
  states,
  attributes: { heads: "count", slots: "count" },
  outputs: ["result"],
  shape({ key, value, heads }) {
    requireHeads("attentionFree", [key, value], Math.max(1, heads), key.width);
    return { result: key };
  },
  reference: (operands, { ranges }) => ({ result: average(operands, ranges, operands) }),
  gradient({ operands, outputs, gradients }, context) {
    const inputs = {
      ...operands,
      key: context.value(operands.key),
      value: context.value(operands.value),
      result: context.value(outputs.result),
      gradient: gradients.result as RowNode,
    };
    const d = aftGradient.apply(inputs);
    context.add(operands.key, () => d.key);
    context.add(operands.value, () => d.value);
    const [rows, window] = operands.bias.shape as [number, number];
    context.addMatrix(
      operands.bias,
      () => aftBiasGradient.apply({ ...inputs, moments: d.moments, rows, window }).result,
    );
  },
});

/** `moments` are the largest exponents and the sums of weights, which only kernels need. */
const aftGradient = operation({
  name: "aftGradient",
  inputs: ["key", "value", "gradient", "result"],
  matrices: { bias: "table" },
  states,
  attributes: { heads: "count", slots: "count" },
  outputs: ["key", "value", "moments"],
  alwaysWritten: ["key", "value", "moments"],
  shape: ({ key }) => ({ key, value: key, moments: shapeOf("tokens", 2 * key.width) }),
  reference(operands, { ranges }) {
    const { key, value } = averageBack(operands, operands.gradient, ranges, operands);
    return { key, value };
  },
  gradient: { none: "only gradients are built of it" },
});

const aftBiasGradient = operation({
  name: "aftBiasGradient",
  inputs: ["key", "value", "gradient", "result", "moments"],
  matrices: { bias: "table" },
  states,
  attributes: { heads: "count", slots: "count", rows: "count", window: "count" },
  outputs: ["result"],
  shape: ({ rows, window }) => ({ result: { rows, width: window } }),
  reference: (operands, { ranges }) => ({ result: averageBack(operands, operands.gradient, ranges, operands).bias }),
  gradient: { none: "only gradients are built of it" },
});

/**
 * The causal average with weights e^(key + bias).
 *
 * @param bias [positions or heads, window]: for tokens less than `window` back; those further back have none
 * @param heads parts of the width that biases are by; 0 where they are by position
 */
export function attentionFree(
  g: GraphBuilder,
  { key, value }: { readonly key: RowNode; readonly value: RowNode },
  bias: WeightNode,
  heads: number,
): RowNode {
  const { width } = key;
  const slots = Math.max(1, (bias.shape[1] as number) - 1);
  return aft.apply({
    key,
    value,
    bias,
    heads,
    slots,
    count: g.state(width, 0),
    keys: g.state([slots, width], 0),
    values: g.state([slots, width], 0),
    numerator: g.state(width, 0),
    denominator: g.state(width, 0),
    maxExponent: g.state(width, -1e30),
  }).result;
}

interface AttentionFreeInputs {
  readonly key: Rows;
  readonly value: Rows;
  /** [positions or heads, window] */
  readonly bias: Rows;
  /** Heads that biases are by; 0 where they are by position. */
  readonly heads: number;
}

/** Offsets in a state block. */
interface AttentionFreeOffsets {
  readonly count: number;
  readonly keys: number;
  readonly values: number;
  readonly slots: number;
  readonly numerator: number;
  readonly denominator: number;
  readonly maxExponent: number;
}

/** A token that an average is over. */
interface Term {
  readonly key: number;
  readonly value: number;
  readonly bias: number;
  /** Row of this pass, negative for what the state holds; and how far back, the window for what is beyond it. */
  readonly row: number;
  readonly distance: number;
}

function average(inputs: AttentionFreeInputs, ranges: readonly RowRange[], offsets: AttentionFreeOffsets): Rows {
  const { key, value, bias } = inputs;
  const { width } = key;
  const out = zeros(key.rows, width, key.values);
  for (const range of ranges) {
    const { start, count, state, nextState } = range;
    for (let c = 0; c < width; c++) {
      const cached = state[offsets.count + c] as number;
      for (let t = 0; t < count; t++)
        out.values[(start + t) * width + c] = averageAt(inputs, range, offsets, t, c).average;
      // The state after: sums over what lies before the window of the next token, the others in the ring.
      const end = cached + count;
      const at = (position: number): [number, number] =>
        position < cached
          ? [
              state[offsets.keys + (position % offsets.slots) * width + c] as number,
              state[offsets.values + (position % offsets.slots) * width + c] as number,
            ]
          : [
              key.values[(start + position - cached) * width + c] as number,
              value.values[(start + position - cached) * width + c] as number,
            ];
      let numerator = state[offsets.numerator + c] as number;
      let denominator = state[offsets.denominator + c] as number;
      let exponent = state[offsets.maxExponent + c] as number;
      for (let position = Math.max(0, cached + 1 - bias.width); position <= end - bias.width; position++) {
        const [k, v] = at(position);
        const most = Math.max(exponent, k);
        numerator = Math.exp(exponent - most) * numerator + Math.exp(k - most) * v;
        denominator = Math.exp(exponent - most) * denominator + Math.exp(k - most);
        exponent = most;
      }
      const ring = new Map<number, [number, number]>();
      for (let position = Math.max(0, end - offsets.slots); position < end; position++)
        ring.set(position, at(position));
      for (const [position, [k, v]] of ring) {
        nextState[offsets.keys + (position % offsets.slots) * width + c] = k;
        nextState[offsets.values + (position % offsets.slots) * width + c] = v;
      }
      nextState[offsets.numerator + c] = numerator;
      nextState[offsets.denominator + c] = denominator;
      nextState[offsets.maxExponent + c] = exponent;
      nextState[offsets.count + c] = end;
    }
  }
  return out;
}

/** The gradients for keys and values of these tokens, and for the biases. */
function averageBack(
  inputs: AttentionFreeInputs,
  gradient: Rows,
  ranges: readonly RowRange[],
  offsets: AttentionFreeOffsets,
): { key: Rows; value: Rows; bias: Rows } {
  const { key, value, bias, heads } = inputs;
  const { width } = key;
  const result = {
    key: zeros(key.rows, width, key.values),
    value: zeros(value.rows, width, key.values),
    bias: zeros(bias.rows, bias.width, key.values),
  };
  for (const range of ranges) {
    for (let c = 0; c < width; c++) {
      for (let t = 0; t < range.count; t++) {
        const { average, terms, weights } = averageAt(inputs, range, offsets, t, c);
        const g = gradient.values[(range.start + t) * width + c] as number;
        terms.forEach((term, i) => {
          const share = (weights[i] as number) * g;
          if (term.row < 0) return;
          addAt(result.value.values, term.row * width + c, share);
          addAt(result.key.values, term.row * width + c, share * (term.value - average));
          if (term.distance >= bias.width) return;
          const row = biasRow(inputs, heads, (range.state[offsets.count + c] as number) + t, c);
          addAt(result.bias.values, row * bias.width + term.distance, share * (term.value - average));
        });
      }
    }
  }
  return result;
}

function biasRow({ bias, key }: AttentionFreeInputs, heads: number, position: number, c: number): number {
  return heads > 0 ? Math.floor(c / (key.width / heads)) : Math.min(position, bias.rows - 1);
}

function averageAt(
  inputs: AttentionFreeInputs,
  { start, state }: RowRange,
  offsets: AttentionFreeOffsets,
  t: number,
  c: number,
): { average: number; terms: Term[]; weights: number[] } {
  const { key, value, bias, heads } = inputs;
  const { width } = key;
  const cached = state[offsets.count + c] as number;
  const position = cached + t;
  const terms: Term[] = [];
  for (let s = position; s >= 0; s--) {
    const distance = position - s;
    const inWindow = distance < bias.width;
    const row = s - cached;
    if (row < 0 && s < cached - offsets.slots) break; // in the sums
    // What the window of the first token here does not reach is in the sums too.
    if (row < 0 && cached - s >= bias.width) break;
    const slot = (s % offsets.slots) * width + c;
    terms.push({
      key: (row >= 0 ? key.values[(start + row) * width + c] : state[offsets.keys + slot]) as number,
      value: (row >= 0 ? value.values[(start + row) * width + c] : state[offsets.values + slot]) as number,
      bias: inWindow ? (bias.values[biasRow(inputs, heads, position, c) * bias.width + distance] as number) : 0,
      row: row >= 0 ? start + row : -1,
      distance,
    });
  }
  const past = {
    numerator: state[offsets.numerator + c] as number,
    denominator: state[offsets.denominator + c] as number,
    exponent: state[offsets.maxExponent + c] as number,
  };
  const most = terms.reduce((largest, term) => Math.max(largest, term.key + term.bias), past.exponent);
  const raw = terms.map((term) => Math.exp(term.key + term.bias - most));
  const kept = Math.exp(past.exponent - most);
  const total = raw.reduce((sum, weight) => sum + weight, kept * past.denominator);
  const numerator = raw.reduce((sum, weight, i) => sum + weight * (terms[i] as Term).value, kept * past.numerator);
  return { average: numerator / total, terms, weights: raw.map((weight) => weight / total) };
}
