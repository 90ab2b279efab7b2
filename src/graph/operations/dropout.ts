// Dropout (Srivastava et al., JMLR 15, 2014): in training some elements are left out at random.

import type { RowNode } from "../graph.js";
import { operation } from "../operation.js";
import { zeros } from "../rows.js";

/**
 * 0 for elements left out, x / (1 - rate) for the others. Which are left out follows from the pass's seed, `index` and the place in
 * the whole step alone, so the gradient, which is the same function, leaves out the same.
 */
export const dropout = operation({
  name: "dropout",
  inputs: ["x"],
  attributes: { index: "count", rate: "number" },
  outputs: ["result"],
  inPlace: { output: "result", inputs: ["x"] },
  shape: ({ x }) => ({ result: x }),
  reference({ x, rate, index }, { seed, firstRow = 0 }) {
    const out = zeros(x.rows, x.width, x.values);
    const key = hash((seed ^ hash(index + 1)) >>> 0);
    const threshold = Math.floor(Math.fround(rate) * 2 ** 32);
    const first = firstRow * x.width;
    for (let i = 0; i < out.values.length; i++) {
      const kept = hash((key ^ hash((first + i) >>> 0)) >>> 0) >= threshold;
      out.values[i] = kept ? (x.values[i] as number) / (1 - rate) : 0;
    }
    return { result: out };
  },
  gradient({ operands: { x, index, rate }, gradients }, context) {
    context.add(x, () => dropout.apply({ x: gradients.result as RowNode, index, rate }).result);
  },
});

/** A number that looks random, from any other (Chris Wellons, https://github.com/skeeto/hash-prospector, "lowbias32"). */
function hash(number: number): number {
  let x = number;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}
