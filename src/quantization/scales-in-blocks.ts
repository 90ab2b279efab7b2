// Where the scales of ggml's blocks lie, so that a matrix can be multiplied by a number without touching its integers.
// Source: ggml/src/ggml-common.h in llama.cpp. All scales are binary16, and rows are blocks one after the other.

import type { StorageType } from "./storage-types.js";

/** Bytes of a block and the positions of its scales, d and then m or dmin where there is one. */
export interface ScalesInBlock {
  readonly bytes: number;
  readonly scales: readonly number[];
}

const all: Readonly<Record<string, ScalesInBlock>> = {
  Q4_0: { bytes: 18, scales: [0] },
  Q4_1: { bytes: 20, scales: [0, 2] },
  Q5_0: { bytes: 22, scales: [0] },
  Q5_1: { bytes: 24, scales: [0, 2] },
  Q8_0: { bytes: 34, scales: [0] },
  Q2_K: { bytes: 84, scales: [80, 82] },
  Q3_K: { bytes: 110, scales: [108] },
  Q4_K: { bytes: 144, scales: [0, 2] },
  Q5_K: { bytes: 176, scales: [0, 2] },
  Q6_K: { bytes: 210, scales: [208] },
  IQ4_NL: { bytes: 18, scales: [0] },
  IQ4_XS: { bytes: 136, scales: [0] },
};

/** @throws RangeError for types that are not ggml's */
export function scalesInBlock(dtype: StorageType): ScalesInBlock {
  const found = Object.hasOwn(all, dtype) ? all[dtype] : undefined;
  if (!found) throw new RangeError(`the scales of ${dtype} cannot be multiplied`);
  return found;
}
