// Rows of ggml's Q8_0 and Q4_0 from groups of q8 and q4, which are the same numbers with sixteen rows side by side:
// what ggml-blocks.ts lays out for kernels, the other way.

import { blockInputs, groupOutputs, type OneScaleType, placeOf } from "./blocks.js";

/** The type of ggml's with the same numbers. */
export const ggmlTypesOfGroups = { q8: "Q8_0", q4: "Q4_0" } as const satisfies Record<OneScaleType, string>;

const quantBytes: Readonly<Record<OneScaleType, number>> = { q8: blockInputs, q4: blockInputs / 2 };

/**
 * @param group of sixteen rows, of which those at a matrix's end may be none
 * @param inputs a multiple of 32
 * @param rows how many there are
 * @returns the rows, one after the other
 */
export function rowsOfGroup(group: Uint8Array, inputs: number, dtype: OneScaleType, rows: number): Uint8Array {
  const blocks = inputs / blockInputs;
  const bytes = 2 + quantBytes[dtype];
  const result = new Uint8Array(rows * blocks * bytes);
  for (let row = 0, at = 0; row < rows; row++) {
    for (let block = 0; block < blocks; block++, at += bytes) {
      const { scale, quant } = placeOf(dtype, row, block * blockInputs);
      result.set(group.subarray(scale, scale + 2), at);
      for (let i = 0; i < quantBytes[dtype]; i += 4) {
        const from = quant + i * groupOutputs;
        result.set(group.subarray(from, from + 4), at + 2 + i);
      }
    }
  }
  return result;
}
