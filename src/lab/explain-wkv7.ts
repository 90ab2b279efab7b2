// The recurrence of RWKV-7 explained: what each token makes fade, removes and writes, and what the values of earlier tokens weigh in what
// is read.

import type { RowNode } from "../graph/graph.js";
import { operandsOfFunction } from "../graph/operations/elementwise.js";
import { wkv7 as wkv7Operation } from "../graph/operations/wkv7.js";
import type { Rows } from "../graph/rows.js";
import { type DeltaRuleRows, type HeadHistory, headHistory } from "./delta-rule.js";
import { byRow, type ExplainedRecurrence, mean, rootMeanSquare } from "./explained-layer.js";

export function explainedWkv7(node: RowNode): ExplainedRecurrence | undefined {
  const operands = wkv7Operation.operandsOf(node.call);
  if (!operands) return undefined;
  const { receptance, decay, key, value, removal, replacement, heads } = operands;
  const product = operandsOfFunction("multiply", replacement.call);
  if (!product || product.a !== removal) throw new RangeError("not a graph of RWKV-7");
  const learningRate = product.b;
  return {
    nodes: [receptance, decay, key, value, removal, replacement, learningRate],
    explain(values) {
      const rows: DeltaRuleRows = {
        receptance: values.of(receptance),
        decay: values.of(decay),
        key: values.of(key),
        value: values.of(value),
        removal: values.of(removal),
        replacement: values.of(replacement),
      };
      const histories = Array.from({ length: heads }, (_, head) => headHistory(rows, head, key.width / heads));
      const shares = (of: (history: HeadHistory) => readonly Float64Array[]) =>
        meanRows(histories.map(of), shareOfSizes);
      const meanOf = (of: (history: HeadHistory, t: number) => number) =>
        Array.from({ length: rows.key.rows }, (_, t) => mean(histories.map((history) => of(history, t))));
      return {
        receptance: byRow(rows.receptance, rootMeanSquare),
        key: byRow(rows.key, rootMeanSquare),
        value: byRow(rows.value, rootMeanSquare),
        half_lives: halfLives(rows.decay),
        weights: shares(({ weights }) => weights),
        delta_rule: {
          decay: byRow(rows.decay, mean),
          learning_rate: byRow(values.of(learningRate), mean),
          faded: meanOf(({ faded }, t) => faded[t] as number),
          removed: meanOf(({ removed }, t) => removed[t] as number),
          removals: shares(({ removals }) => removals),
          subtracted: meanOf(({ weights }, t) => subtractedShare(weights[t] as Float64Array)),
        },
      };
    },
  };
}

/** ln 2 over the mean of -ln w over the text, for each channel, ascending. */
function halfLives({ rows, width, values }: Rows): number[] {
  const logarithms = new Float64Array(width);
  values.forEach((w, i) => {
    logarithms[i % width] = (logarithms[i % width] as number) - Math.log(w) / rows;
  });
  return [...logarithms.map((logarithm) => Math.LN2 / logarithm)].sort((a, b) => a - b);
}

/** The mean over heads of a function of each row. */
function meanRows(
  heads: readonly (readonly Float64Array[])[],
  of: (row: Float64Array) => Float64Array,
): readonly (readonly number[])[] {
  const [first = []] = heads;
  return first.map((own, t) => {
    const rows = heads.map((head) => of(head[t] as Float64Array));
    return Array.from(own, (_, s) => mean(rows.map((row) => row[s] as number)));
  });
}

/** Sizes over their sum; alike where all are 0. */
function shareOfSizes(row: Float64Array): Float64Array {
  const sum = row.reduce((total, weight) => total + Math.abs(weight), 0);
  return row.map((weight) => (sum === 0 ? 1 / row.length : Math.abs(weight) / sum));
}

function subtractedShare(row: Float64Array): number {
  const shares = shareOfSizes(row);
  return row.reduce((total, weight, s) => total + (weight < 0 ? (shares[s] as number) : 0), 0);
}
