// Causal softmax attention (arXiv 1706.03762, equation 1 and section 3.2.2), forward and back. Each head is a part of the width;
// a sequence's state is a cache of the keys and values of its tokens.

import type { RowNode } from "../../graph/graph.js";
import type { GraphBuilder } from "../../graph/graph-builder.js";
import { operation } from "../../graph/operation.js";
import { addAt, type RowRange, type Rows, zeros } from "../../graph/rows.js";
import { type Attended, attentionInputs, type HeadRows, requireHeads, valuesFor, zeroGradients } from "./heads.js";

const widestHead = 256;

const attentionOperation = operation({
  name: "attention",
  inputs: attentionInputs,
  states: ["count", "keys", "values"],
  attributes: { heads: "count", capacity: "count" },
  outputs: ["result"],
  shape({ query, key, value, heads }) {
    requireHeads("attention", [query, key, value], heads, widestHead);
    return { result: query };
  },
  reference: (operands, { ranges }) => ({ result: attend(operands, ranges, operands) }),
  gradient({ operands, outputs, gradients }, context) {
    const inputs = valuesFor(context, operands);
    const result = context.value(outputs.result);
    const d = attentionGradient.apply({ ...operands, ...inputs, result, gradient: gradients.result as RowNode });
    // What is in the cache is taken as it is.
    for (const name of attentionInputs) context.add(operands[name], () => d[name]);
  },
});

const attentionGradient = operation({
  name: "attentionGradient",
  inputs: ["query", "key", "value", "result", "gradient"],
  states: ["count", "keys", "values"],
  attributes: { heads: "count", capacity: "count" },
  outputs: attentionInputs,
  alwaysWritten: attentionInputs,
  shape: ({ query }) => ({ query, key: query, value: query }),
  reference: (operands, { ranges }) => attendBack(operands, operands.gradient, ranges, operands),
  gradient: { none: "only gradients are built of it" },
});

/** Attention in `heads` parts, each token over itself and those before it, over at most `capacity` tokens. */
export function attention(g: GraphBuilder, inputs: Attended<RowNode>, heads: number, capacity: number): RowNode {
  const { width } = inputs.query;
  const [count, keys, values] = [g.state(heads, 0), g.state([capacity, width], 0), g.state([capacity, width], 0)];
  return attentionOperation.apply({ ...inputs, count, keys, values, heads, capacity }).result;
}

/** Offsets of a cache of keys and values in a state block. */
interface CacheOffsets {
  readonly count: number;
  readonly keys: number;
  readonly values: number;
  readonly capacity: number;
}

/** Softmax attention, arXiv 1706.03762, equation 1, each token over itself and those before it. */
function attend(inputs: HeadRows, ranges: readonly RowRange[], cache: CacheOffsets): Rows {
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
function attendBack(
  inputs: HeadRows,
  gradient: Rows,
  ranges: readonly RowRange[],
  cache: CacheOffsets,
): Attended<Rows> {
  const { query, key, value, heads } = inputs;
  const { width } = query;
  const result = zeroGradients(query);
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
            addAt(result.query.values, row + c, dscore * elementOf(key, range, cache.keys, cached, s, c));
            if (s < cached) continue;
            const at = (start + s - cached) * width + c;
            addAt(result.key.values, at, dscore * (query.values[row + c] as number));
            addAt(result.value.values, at, weight * (gradient.values[row + c] as number));
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
