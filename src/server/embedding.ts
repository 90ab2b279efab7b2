// Texts as vectors: what the model makes of a text in its last layer, in the mean over the text.
//
// The mean over the tokens of a model's last hidden rows is the usual way to embed texts by a model that was trained to predict them
// (N. Muennighoff, SGPT, arXiv 2202.08904, compares it with others). The row here is what the last layer's channel mixing reads, a
// layer norm of the residual stream; it is part of the state, for token shift, so no other graph is needed.

import type { Model, ModelInfo } from "../generation/model.js";
import type { Snapshot } from "../generation/snapshot.js";
import { definitionOf } from "../models/definitions.js";

/** In how many places of a text the row is taken: at each of fewer tokens, else as evenly as can be, the last token included. */
const maxPlaces = 32;

/**
 * Reads a text, and gives the mean of its rows, of length 1.
 *
 * @param tokens the text, at least one token
 * @param before what the text is read after; by default nothing
 * @returns [width]
 * @throws the signal's reason when it is aborted; LimitError where the model has no place for a state
 */
export async function embed(
  model: Model,
  tokens: Int32Array,
  before: Uint8Array | Snapshot | undefined,
  signal: AbortSignal,
): Promise<Float32Array> {
  const { width } = model.info;
  const places = Math.min(maxPlaces, tokens.length);
  const sum = new Float32Array(width);
  const state = model.createState(before);
  try {
    let at = 0;
    for (let i = 1; i <= places; i++) {
      const end = Math.ceil((i * tokens.length) / places);
      signal.throwIfAborted();
      await model.forward([{ state, tokens: tokens.subarray(at, end), logits: "none" }]);
      const row = lastRow(await state.values(), model.info);
      for (let j = 0; j < width; j++) sum[j] = (sum[j] as number) + (row[j] as number);
      at = end;
    }
    return normalized(sum);
  } finally {
    await state.dispose();
  }
}

/**
 * The first numbers of a vector, of length 1 again.
 *
 * @param dimensions how many, at most as many as there are
 */
export function shortened(vector: Float32Array, dimensions: number): Float32Array {
  return dimensions === vector.length ? vector : normalized(vector.subarray(0, dimensions));
}

/** What channel mixing of the last layer has read last, as it lies in the state (docs/model.md). */
function lastRow(values: Float32Array, { version, layers, width }: ModelInfo): Float32Array {
  const at = definitionOf(version).lastRowOffset?.({ layers, width }) ?? values.length - width;
  return values.subarray(at, at + width);
}

function normalized(vector: Float32Array): Float32Array {
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
  return vector.map((value) => (length === 0 ? 0 : value / length)); // what is no number stays none
}
