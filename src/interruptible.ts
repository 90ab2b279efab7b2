// Long synchronous work that yields to the event loop, so that timers, other requests, and the signal that ends it (such as
// Ctrl-C) are handled. Such work is written as a generator that yields wherever it can pause.

import { inNextTurn } from "./next-event-loop-turn.js";

/** Thrown where a signal ended the work before there was anything to keep. */
export class InterruptedError extends Error {
  override name = "InterruptedError";
}

/** The most milliseconds that the event loop waits, apart from the work between two yields. */
const turn = 40;

/** @throws InterruptedError once the signal is aborted */
export function checkInterrupt(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new InterruptedError("interrupted");
}

/**
 * Runs work to its end with pauses for the event loop.
 *
 * @throws InterruptedError soon after the signal is aborted
 */
export async function interruptible<Result>(
  work: Generator<void, Result, void>,
  signal: AbortSignal | undefined,
): Promise<Result> {
  checkInterrupt(signal);
  let paused = performance.now();
  for (;;) {
    const { done, value } = work.next();
    if (done) return value;
    if (performance.now() - paused < turn) continue;
    await new Promise<void>(inNextTurn);
    checkInterrupt(signal);
    paused = performance.now();
  }
}

/** Runs work to its end without a pause. */
export function uninterrupted<Result>(work: Generator<void, Result, void>): Result {
  for (;;) {
    const { done, value } = work.next();
    if (done) return value;
  }
}
