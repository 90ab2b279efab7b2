// Measures a model on held-out text: each token is predicted from all tokens before it, and the state is passed from piece to
// piece.

import type { ResidentState } from "../backends/backend.js";
import type { TrainingRuntime, TrainingSegment } from "../backends/training.js";
import { type HeldOutText, targetCount, targetsAt } from "./dataset.js";

/** A text being read: its state, how far it is read, and how much of it there is to read. */
interface Reading {
  readonly text: HeldOutText;
  readonly end: number;
  state: ResidentState;
  next: ResidentState;
  at: number;
}

/** How texts are measured. */
export interface MeasureOptions {
  /** Texts that are read at once. */
  readonly batch: number;
  readonly context: number;
  /** Most tokens of each text; Infinity measures all. */
  readonly limit: number;
  /** Writes the state that texts begin with. */
  readonly begin: (state: ResidentState) => void;
  readonly signal?: AbortSignal | undefined;
}

/** Bits per byte of held-out texts; undefined where the signal ended the measurement. */
export async function bitsPerByte(
  runtime: TrainingRuntime,
  texts: readonly HeldOutText[],
  options: MeasureOptions,
): Promise<number | undefined> {
  const measured = await measureTexts(runtime, texts, options);
  return measured && measured.nats / Math.LN2 / measured.bytes;
}

/** The loss of all tokens of held-out texts, and their bytes; undefined where the signal ended the measurement. */
export async function measureTexts(
  runtime: TrainingRuntime,
  texts: readonly HeldOutText[],
  { batch, context, limit, begin, signal }: MeasureOptions,
): Promise<{ readonly nats: number; readonly bytes: number } | undefined> {
  const waiting = [...texts];
  const free: ResidentState[] = [];
  const reading: Reading[] = [];
  let nats = 0;
  let bytes = 0;
  while ((waiting.length > 0 || reading.length > 0) && !signal?.aborted) {
    while (reading.length < batch) {
      const text = waiting.shift();
      if (!text) break;
      const state = free.pop() ?? runtime.createState();
      begin(state);
      const end = Math.min(text.tokens.length - 1, limit);
      // Of a part of a text we know its tokens, and count its bytes in proportion.
      bytes += (text.bytes * targetCount(text, end)) / targetCount(text);
      reading.push({ text, end, state, next: free.pop() ?? runtime.createState(), at: 0 });
    }
    const segments = reading.map(({ text, state, next, at, end }): TrainingSegment => {
      const to = Math.min(at + context, end);
      return {
        state,
        nextState: next,
        tokens: text.tokens.subarray(at, to),
        targets: targetsAt(text, at, to - at),
      };
    });
    for (const loss of await runtime.evaluate(segments)) nats += loss;
    for (const one of [...reading]) {
      one.at = Math.min(one.at + context, one.end);
      [one.state, one.next] = [one.next, one.state];
      if (one.at < one.end) continue;
      reading.splice(reading.indexOf(one), 1);
      free.push(one.state, one.next);
    }
  }
  const finished = reading.length === 0 && waiting.length === 0;
  for (const state of [...free, ...reading.flatMap(({ state, next }) => [state, next])]) state.release();
  return finished ? { nats, bytes } : undefined;
}
