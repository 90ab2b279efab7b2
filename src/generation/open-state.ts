// Opens a file with a state: one that was saved here, or tuned states of others. Its content says which, not its name.

import { fileSource } from "#platform/files";
import { type ByteSource, readRange } from "../byte-source.js";
import type { Checkpoint } from "../checkpoints/checkpoint.js";
import { type CheckpointInput, resolveInput } from "../checkpoints/checkpoint-input.js";
import { readDirectory } from "../checkpoints/open-checkpoint.js";
import { StateError } from "../errors.js";
import { looksLikeSavedState, savedStateMagic, savedStateSize } from "./state-file.js";

/** Numbers of floats. */
interface StateLengths {
  readonly state: number;
  readonly logits: number;
}

/** A saved state as bytes, or a file that may be tuned states. */
export type OpenedState = { readonly saved: Uint8Array } | { readonly tuned: Checkpoint };

/**
 * @param lengths floats of a state of the model, and of its logits
 * @param use what is done with the state; the file is closed after it
 * @throws CheckpointError when the file cannot be read or is neither; StateError for a saved state of another length; OptionError for
 *   an input that is none
 */
export async function withState<T>(
  input: CheckpointInput,
  lengths: StateLengths,
  use: (state: OpenedState) => T | Promise<T>,
): Promise<T> {
  const resolved = resolveInput(input);
  const source = typeof resolved === "string" ? await fileSource(resolved) : resolved;
  try {
    return await use(await stateIn(source, lengths));
  } finally {
    await source.close();
  }
}

async function stateIn(source: ByteSource, lengths: StateLengths): Promise<OpenedState> {
  const start = await readRange(source, 0, Math.min(savedStateMagic.length, source.size));
  if (!looksLikeSavedState(start)) {
    return { tuned: { name: source.name, ...(await readDirectory(source)), close: () => source.close() } };
  }
  const expected = [savedStateSize(lengths.state), savedStateSize(lengths.state, lengths.logits)];
  if (expected.includes(source.size)) return { saved: await readRange(source, 0, source.size) };
  throw new StateError(
    `${source.name}: a saved state of another model, or one that is damaged: expected ${expected[0]} bytes, found ${source.size}`,
  );
}
