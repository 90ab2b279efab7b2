// The recurrence of RWKV-4 explained: a weighted average of values, channel by channel.

import type { RowNode } from "../graph/graph.js";
import { operandsOfFunction } from "../graph/operations/elementwise.js";
import { wkv as wkvOperation } from "../graph/operations/wkv.js";
import type { Rows } from "../graph/rows.js";
import { byRow, type ExplainedRecurrence, mean, rootMeanSquare } from "./explained-layer.js";

/** @param nodes of the graph, in which the receptance is what multiplies the recurrence */
export function explainedWkv(node: RowNode, nodes: readonly RowNode[]): ExplainedRecurrence | undefined {
  const wkv = wkvOperation.operandsOf(node.call);
  if (!wkv) return undefined;
  const products = nodes.flatMap(({ call }) => operandsOfFunction("multiply", call) ?? []);
  const product = products.find(({ a, b }) => a === node || b === node);
  if (!product) throw new RangeError("not a graph of RWKV-4");
  const receptance = product.a === node ? product.b : product.a;
  return {
    nodes: [receptance, wkv.key, wkv.value],
    explain(values) {
      const decay = values.vector(wkv.decay);
      return {
        receptance: byRow(values.of(receptance), mean),
        key: byRow(values.of(wkv.key), mean),
        value: byRow(values.of(wkv.value), rootMeanSquare),
        half_lives: [...decay.map((w) => Math.LN2 / -w)].sort((a, b) => a - b),
        weights: meanWeights(values.of(wkv.key), decay, values.vector(wkv.first)),
      };
    },
  };
}

/**
 * The weights of equation 16 of arXiv 2305.13048v2: on token s before t e^((t-1-s) w + k[s]), on t itself e^(u + k[t]), over
 * their sum; for each channel, then the mean over channels.
 */
export function meanWeights(key: Rows, decay: Float32Array, first: Float32Array): number[][] {
  const result: number[][] = [];
  for (let t = 0; t < key.rows; t++) {
    const row = new Array<number>(t + 1).fill(0);
    for (let c = 0; c < key.width; c++) {
      const exponents = row.map((_, s) => {
        const k = key.values[s * key.width + c] as number;
        return s === t ? (first[c] as number) + k : (t - 1 - s) * (decay[c] as number) + k;
      });
      const most = Math.max(...exponents);
      const sum = exponents.reduce((total, exponent) => total + Math.exp(exponent - most), 0);
      exponents.forEach((exponent, s) => {
        row[s] = (row[s] as number) + Math.exp(exponent - most) / sum / key.width;
      });
    }
    result.push(row);
  }
  return result;
}
