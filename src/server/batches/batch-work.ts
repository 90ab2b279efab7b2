// Who carries out the batches of a server: the server itself (here), or workers of a queue (queue/).

import { RwkvError } from "../../errors.js";
import type { BatchDirectory } from "./batch-directory.js";
import type { LineRunnerOptions } from "./line-runner.js";
import { answersHere, type BatchOptions } from "./run-batch.js";

/** Something that is needed is not to be had at present: a batch stays as it is, and is tried again. */
export class TryAgainError extends RwkvError {
  override name = "TryAgainError";
}

/** Answers are of another model than a batch is to have. */
export class WrongModelError extends RwkvError {
  override name = "WrongModelError";
}

/** A batch that is carried out. */
export interface WorkedBatch {
  readonly id: string;
  /** Whose it is. */
  readonly owner: string;
  /** What its answers must be of. */
  readonly model: string;
  /** Aborted when it is cancelled, or its time is over: what was done by then is given, and the rest not carried out. */
  readonly over: AbortSignal;
  /** Aborted when this server leaves it as it is. */
  readonly left: AbortSignal;
}

/** A batch that nobody else carries out. */
export interface BatchLock {
  /** Aborted when another may carry it out. */
  readonly lost: AbortSignal;
  /** @throws the reason of `lost`, where another may carry it out and this process, having been held up, has not been told yet */
  check(): void;
  unlock(): Promise<void>;
}

/** Carries out batches. */
export interface BatchWork {
  /** Batches at once. */
  readonly batchesAtOnce: number;
  /** What answers the lines of a batch. */
  answers(batch: WorkedBatch): BatchOptions["answers"];
  /** Keeps a batch from others. @returns undefined while somebody carries it out, or it cannot be found out */
  lock(id: string): Promise<BatchLock | undefined>;
  /** Says that a batch is over which somebody else was in the middle of, or nobody has begun. */
  noteOver(id: string): Promise<void>;
}

/**
 * The server itself: one batch after the other, with so many lines at once, each in the name of the batch's owner.
 *
 * @param maxBytes of a line
 */
export function workHere(
  directory: BatchDirectory,
  fetchAs: (owner: string) => LineRunnerOptions["fetch"],
  { atOnce, maxBytes }: { readonly atOnce: number; readonly maxBytes: number },
): BatchWork {
  return {
    batchesAtOnce: 1,
    answers: ({ owner, over, left }) =>
      answersHere(atOnce, { fetch: fetchAs(owner), maxBytes, signal: AbortSignal.any([over, left]) }),
    async lock(id) {
      await directory.agreeOnQueue(undefined);
      const unlock = await directory.lock(id);
      return unlock && { lost: new AbortController().signal, check() {}, unlock };
    },
    async noteOver() {},
  };
}
