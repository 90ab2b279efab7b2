// Reads a prompt into a sequence. The last token is kept pending, because its logits are wanted when it is run.

import type { Scheduler } from "./scheduler.js";
import type { Sequence } from "./sequence.js";

/** Options of `session.read`. */
export interface ReadOptions {
  /** Ends the reading before its next pass. The tokens read until then stay read. */
  readonly signal?: AbortSignal;
  /** Called after each pass, with the number of tokens read so far and their total number. */
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Reads tokens into a sequence.
 *
 * @throws the reason for which the scheduler was told to cancel the sequence
 */
export async function readTokens(
  scheduler: Scheduler,
  sequence: Sequence,
  tokens: Int32Array,
  onProgress?: (done: number, total: number) => void,
): Promise<void> {
  if (tokens.length === 0) return;
  const { pendingToken, position } = sequence;
  const pending = pendingToken === undefined ? 0 : 1;
  const queued = new Int32Array(pending + tokens.length);
  if (pendingToken !== undefined) queued[0] = pendingToken;
  queued.set(tokens, pending);
  const onRun = (done: number) => {
    sequence.pendingToken = queued[done];
    sequence.position = position + done + 1 - pending;
    onProgress?.(done + 1 - pending, tokens.length);
  };
  if (queued.length === 1) return onRun(0);
  await scheduler.run({ sequence, tokens: queued.subarray(0, -1), logits: "none", onRun });
}
