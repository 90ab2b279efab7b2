// Reading a prompt into a sequence. The last token waits: when it is run, its logits are wanted too.

import type { Scheduler } from "./scheduler.js";
import type { Sequence } from "./sequence.js";

/** Options of `session.read`. */
export interface ReadOptions {
  /** Ends the reading before its next pass. What was read until then stays read. */
  readonly signal?: AbortSignal;
  /** Called after each pass, with the tokens that have been read and their number in all. */
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Reads tokens into a sequence.
 *
 * @throws the reason for which the scheduler was told to cancel it
 */
export async function readTokens(
  scheduler: Scheduler,
  sequence: Sequence,
  tokens: Int32Array,
  onProgress?: (done: number, total: number) => void,
): Promise<void> {
  if (tokens.length === 0) return;
  const { pendingToken, position } = sequence;
  const waited = pendingToken === undefined ? 0 : 1;
  const ready = new Int32Array(waited + tokens.length);
  if (pendingToken !== undefined) ready[0] = pendingToken;
  ready.set(tokens, waited);
  const onRun = (done: number) => {
    sequence.pendingToken = ready[done];
    sequence.position = position + done + 1 - waited;
    onProgress?.(done + 1 - waited, tokens.length);
  };
  if (ready.length === 1) return onRun(0);
  await scheduler.run({ sequence, tokens: ready.subarray(0, -1), logits: "none", onRun });
}
