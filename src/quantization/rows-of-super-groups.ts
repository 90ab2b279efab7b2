// Rows of ggml's Q4_K, Q5_K and Q6_K from groups of q4k, q5k and q6k. Laying a block out for kernels moves its bits and
// changes none, so the way back need not be written down a second time: blocks with a single bit each are laid out
// once, and tell where every bit goes.

import { groupOutputs } from "./blocks.js";
import { blockFormats } from "./storage-types.js";
import { layouts, type SuperBlockType, superBlockInputs } from "./super-blocks.js";

/** The type of ggml's with the same numbers. */
export const ggmlTypesOfSuperGroups: Readonly<Record<SuperBlockType, "Q4_K" | "Q5_K" | "Q6_K">> = {
  q4k: "Q4_K",
  q5k: "Q5_K",
  q6k: "Q6_K",
};

/** For each row of a group, and each bit of its block, the bit of the super-block's part of the group. */
type BitPlaces = readonly Int32Array[];
const known = new Map<SuperBlockType, BitPlaces>();

/**
 * @param group of sixteen rows, of which those at a matrix's end may be none
 * @param rows how many there are
 * @returns the rows, one after the other
 */
export function rowsOfSuperGroup(group: Uint8Array, inputs: number, dtype: SuperBlockType, rows: number): Uint8Array {
  const places = placesOf(dtype);
  const { size } = layouts[dtype];
  const bytes = (places[0] as Int32Array).length / 8;
  const blocks = inputs / superBlockInputs;
  const result = new Uint8Array(rows * blocks * bytes);
  for (let row = 0, at = 0; row < rows; row++) {
    const bits = places[row] as Int32Array;
    for (let block = 0; block < blocks; block++, at += bytes) {
      const from = block * size;
      for (let byte = 0; byte < bytes; byte++) {
        let value = 0;
        for (let bit = 0; bit < 8; bit++) {
          const place = bits[8 * byte + bit] as number;
          value |= (((group[from + (place >> 3)] as number) >> (place & 7)) & 1) << bit;
        }
        result[at + byte] = value;
      }
    }
  }
  return result;
}

function placesOf(dtype: SuperBlockType): BitPlaces {
  const places = known.get(dtype) ?? findPlaces(dtype);
  known.set(dtype, places);
  return places;
}

function findPlaces(dtype: SuperBlockType): BitPlaces {
  const format = blockFormats.get(ggmlTypesOfSuperGroups[dtype]);
  const bytes = format?.groupSize(superBlockInputs) ?? 0;
  const places = Array.from({ length: groupOutputs }, () => new Int32Array(8 * bytes));
  const rows = new Uint8Array(groupOutputs * bytes);
  const group = new Uint8Array(layouts[dtype].size);
  for (let bit = 0; bit < 8 * bytes; bit++) {
    for (let row = 0; row < groupOutputs; row++) {
      const byte = row * bytes + (bit >> 3);
      rows[byte] = 1 << (bit & 7);
      group.fill(0);
      format?.repack?.group(rows.subarray(0, (row + 1) * bytes), superBlockInputs, group);
      rows[byte] = 0;
      const at = group.findIndex((value) => value !== 0);
      (places[row] as Int32Array)[bit] = 8 * at + Math.log2(group[at] as number);
    }
  }
  return places;
}
