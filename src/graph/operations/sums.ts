// Sums that gradients of vectors and of states are: over all rows, or over sequences.

import { operation } from "../operation.js";
import { addAt, zeros } from "../rows.js";

const onlyInGradients = { none: "only gradients are built of it" };

/** The sum of all rows: the gradient of what is added to each. */
export const columnSums = operation({
  name: "columnSums",
  inputs: ["x"],
  outputs: ["result"],
  shape: ({ x }) => ({ result: { rows: 1, width: x.width } }),
  reference({ x }) {
    const out = zeros(1, x.width, x.values);
    for (let c = 0; c < x.width; c++) {
      let sum = 0;
      for (let t = 0; t < x.rows; t++) sum += x.values[t * x.width + c] as number;
      out.values[c] = sum;
    }
    return { result: out };
  },
  gradient: onlyInGradients,
});

/** The sum over sequences of a part of each one's first row; parts are `width` floats each. */
export const segmentSums = operation({
  name: "segmentSums",
  inputs: ["x"],
  attributes: { part: "count", width: "count" },
  outputs: ["result"],
  shape: ({ width }) => ({ result: { rows: 1, width } }),
  reference({ x, part, width }, { ranges }) {
    const out = zeros(1, width, x.values);
    for (const { start } of ranges) {
      for (let c = 0; c < width; c++) addAt(out.values, c, x.values[start * x.width + part * width + c] as number);
    }
    return { result: out };
  },
  gradient: onlyInGradients,
});
