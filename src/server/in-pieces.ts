// Long work in the thread that serves, which others get their turns in.

import { setImmediate as nextTurn } from "node:timers/promises";

/** Milliseconds after which others get a turn. */
const longestPiece = 5;

/** Works follow each other: pieces of several would make one longer pause. */
let last: Promise<unknown> = Promise.resolve();

/** Runs work that comes in steps, and lets the event loop turn every few milliseconds. @returns what the steps end with */
export function inPieces<T>(steps: Generator<void, T, void>): Promise<T> {
  const result = last.then(() => run(steps));
  last = result.catch(() => {});
  return result;
}

async function run<T>(steps: Generator<void, T, void>): Promise<T> {
  for (let began = performance.now(); ; ) {
    const { done, value } = steps.next();
    if (done) return value;
    if (performance.now() - began < longestPiece) continue;
    await nextTurn();
    began = performance.now();
  }
}
