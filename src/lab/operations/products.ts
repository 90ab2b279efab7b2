// Products of a matrix with one vector, for the plain forms of recurrent networks.

import { addAt, type Rows } from "../../graph/rows.js";

/** weight · x */
export function product(weight: Rows, x: ArrayLike<number>): Float64Array {
  return Float64Array.from({ length: weight.rows }, (_, o) => {
    let sum = 0;
    for (let i = 0; i < weight.width; i++) sum += (weight.values[o * weight.width + i] as number) * (x[i] as number);
    return sum;
  });
}

/** The transpose of weight · x */
export function transposedProduct(weight: Rows, x: ArrayLike<number>): Float64Array<ArrayBuffer> {
  const out = new Float64Array(weight.width);
  for (let o = 0; o < weight.rows; o++) {
    for (let i = 0; i < weight.width; i++) {
      addAt(out, i, (weight.values[o * weight.width + i] as number) * (x[o] as number));
    }
  }
  return out;
}
