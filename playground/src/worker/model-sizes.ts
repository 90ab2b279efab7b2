// How much memory models take.

import type { WeightDType } from "rwkv";

/** Bytes of a weight in memory by its type; those of blocks have a scale for each block. */
export const bytesPerWeight: Readonly<Record<string, number>> = { f32: 4, f16: 2, bf16: 2, q8: 1.0625, q4: 0.5625 };

/** Types to choose from where weights as stored are too large, the most exact first. */
export const offeredTypes = ["f16", "q8", "q4"] as const satisfies readonly WeightDType[];
