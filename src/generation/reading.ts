// Reads a prompt into a sequence. The last token is kept pending, because its logits are wanted when it is run; or it is run at once,
// and its logits are kept.

import type { Scheduler } from "./scheduler.js";
import type { Sequence } from "./sequence.js";

/** Options of `session.read`. */
export interface ReadOptions {
  /** Ends the reading before its next pass. The tokens read until then stay read. */
  readonly signal?: AbortSignal;
  /** Called after each pass, with the number of tokens read so far and their total number. */
  readonly onProgress?: (done: number, total: number) => void;
  /**
   * Runs the last token, too, and keeps the logits that follow it, so that a generation samples its first token without a pass.
   * A snapshot then has them. Default false.
   */
  readonly keepLogits?: boolean;
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
  { onProgress, keepLogits = false }: Omit<ReadOptions, "signal"> = {},
): Promise<void> {
  if (tokens.length === 0 && !keepLogits) return;
  const { pendingToken, position } = sequence;
  const pending = pendingToken === undefined ? 0 : 1;
  const queued = new Int32Array(pending + tokens.length);
  if (pendingToken !== undefined) queued[0] = pendingToken;
  queued.set(tokens, pending);
  if (queued.length === 0) return;
  const onRun = (done: number) => {
    const read = Math.min(done + 1, queued.length);
    sequence.pendingToken = queued[done];
    sequence.logits = undefined;
    sequence.position = position - pending + read;
    onProgress?.(read - pending, tokens.length);
  };
  if (keepLogits) {
    const onLogits = (row: Float32Array) => {
      sequence.logits = row.slice();
    };
    return scheduler.run({ sequence, tokens: queued, logits: "last", onRun, onLogits });
  }
  if (queued.length === 1) return onRun(0);
  await scheduler.run({ sequence, tokens: queued.subarray(0, -1), logits: "none", onRun });
}
