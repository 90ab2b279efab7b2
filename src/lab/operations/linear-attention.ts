// Causal linear attention (arXiv 2006.16236, equations 18 to 20), forward and back. Queries and keys are features, not negative;
// a sequence's state has the sums over its tokens.

import { type RowNode, shapeOf } from "../../graph/graph.js";
import type { GraphBuilder } from "../../graph/graph-builder.js";
import { operation } from "../../graph/operation.js";
import { type Floats, type RowRange, type Rows, zeros } from "../../graph/rows.js";
import { type Attended, attentionInputs, type HeadRows, requireHeads, valuesFor, zeroGradients } from "./heads.js";

const widestHead = 64;

const linearAttentionOperation = operation({
  name: "linearAttention",
  inputs: attentionInputs,
  states: ["sums", "normalizer"],
  attributes: { heads: "count" },
  outputs: ["result"],
  shape({ query, key, value, heads }) {
    requireHeads("linearAttention", [query, key, value], heads, widestHead);
    return { result: query };
  },
  reference: (operands, { ranges }) => ({ result: attend(operands, ranges, operands) }),
  gradient({ operands, outputs, gradients }, context) {
    const inputs = valuesFor(context, operands);
    const result = context.value(outputs.result);
    const d = linearAttentionGradient.apply({ ...operands, ...inputs, result, gradient: gradients.result as RowNode });
    // What is in the state is taken as it is.
    for (const name of attentionInputs) context.add(operands[name], () => d[name]);
  },
});

/** `shares` are 1 / normalizer of each head and token, which only the kernel needs. */
const linearAttentionGradient = operation({
  name: "linearAttentionGradient",
  inputs: ["query", "key", "value", "result", "gradient"],
  states: ["sums", "normalizer"],
  attributes: { heads: "count" },
  outputs: [...attentionInputs, "shares"],
  alwaysWritten: [...attentionInputs, "shares"],
  shape: ({ query, heads }) => ({ query, key: query, value: query, shares: shapeOf("tokens", heads) }),
  reference: (operands, { ranges }) => attendBack(operands, operands.result, operands.gradient, ranges, operands),
  gradient: { none: "only gradients are built of it" },
});

/** Linear attention in `heads` parts, each token over itself and those before it. */
export function linearAttention(g: GraphBuilder, inputs: Attended<RowNode>, heads: number): RowNode {
  const { width } = inputs.query;
  const size = width / heads;
  return linearAttentionOperation.apply({
    ...inputs,
    sums: g.state([heads, size, size], 0),
    normalizer: g.state(width, 0),
    heads,
  }).result;
}

/** Offsets of the sums of linear attention in a state block. */
interface SumOffsets {
  readonly sums: number;
  readonly normalizer: number;
}

/** Linear attention, arXiv 2006.16236, equations 18 to 20: out = query . S / query . z with S and z sums over tokens so far. */
function attend(inputs: HeadRows, ranges: readonly RowRange[], offsets: SumOffsets): Rows {
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
function attendBack(
  inputs: HeadRows,
  result: Rows,
  gradient: Rows,
  ranges: readonly RowRange[],
  offsets: SumOffsets,
): Attended<Rows> {
  const { query, key, value, heads } = inputs;
  const { width } = query;
  const size = width / heads;
  const out = zeroGradients(query);
  /** For each row and head: 1 / query . z, and the gradient of query . z. */
  const shares = new Float64Array(query.rows * heads);
  const dnormalizers = new Float64Array(query.rows * heads);
  walkSums(inputs, ranges, offsets, ({ row, channels, sums, normalizer, head }) => {
    const share = 1 / dotOf(query, row, channels, normalizer);
    const product = channels.reduce(
      (sum, c) => sum + (gradient.values[row + c] as number) * (result.values[row + c] as number),
      0,
    );
    shares[(row / width) * heads + head] = share;
    dnormalizers[(row / width) * heads + head] = -share * product;
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
          dnormalizer[i] = (dnormalizer[i] as number) + (dnormalizers[t * heads + head] as number) * q;
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
