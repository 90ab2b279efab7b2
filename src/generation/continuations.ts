// How probable texts are after a prompt: each is read by a fork of the prompt's state, and all of them share passes.

import { negativeLogProbability } from "../sampling/log-probability.js";
import type { Model } from "./model.js";
import type { Snapshot } from "./snapshot.js";
import type { State } from "./state.js";

/** Rows of logits that are held at once, which is what a pass takes. */
const rowsAtOnce = 128;

/** How probable a token is where it stands. */
export interface TokenScore {
  /** In nats. */
  readonly logProbability: number;
  /** Whether no token is more probable. */
  readonly isMostProbable: boolean;
}

/** A text whose tokens are being read. */
interface Continuation {
  readonly tokens: Int32Array;
  /** The scores of its tokens, as far as they are known. */
  readonly scores: TokenScore[];
}

/**
 * How probable each token of continuations is.
 *
 * @param before the state after the prompt, with the logits that follow it
 * @param continuations the tokens of each, one at least
 * @param places how many states the model is to hold at once, at most
 * @returns of each the scores of its tokens
 * @throws the signal's reason when it is aborted; LimitError
 */
export async function scoreContinuations(
  model: Model,
  before: Snapshot,
  continuations: readonly Int32Array[],
  places: number,
  signal: AbortSignal,
): Promise<TokenScore[][]> {
  const logits = before.logits as Float32Array;
  const all = continuations.map((tokens): Continuation => ({ tokens, scores: [scoreOf(logits, tokens[0] as number)] }));
  const longer = all.filter(({ tokens }) => tokens.length > 1);
  for (let at = 0; at < longer.length; at += places) {
    await readGroup(model, before, longer.slice(at, at + places), signal);
  }
  return all.map(({ scores }) => scores);
}

async function readGroup(
  model: Model,
  before: Snapshot,
  group: readonly Continuation[],
  signal: AbortSignal,
): Promise<void> {
  const states: State[] = [];
  try {
    for (const _ of group) states.push(model.createState(before));
    for (;;) {
      signal.throwIfAborted();
      // The last token of each is not run: what follows it is not asked.
      const open = group
        .map((one, i) => ({ ...one, state: states[i] as State }))
        .filter(({ tokens, scores }) => scores.length < tokens.length);
      if (open.length === 0) return;
      await readOn(model, open);
    }
  } finally {
    await Promise.all(states.map((state) => state.dispose()));
  }
}

/** Reads on in each text, as far as one pass goes. */
async function readOn(model: Model, open: readonly (Continuation & { readonly state: State })[]): Promise<void> {
  const { vocabulary } = model.info;
  const rows = Math.max(1, Math.floor(rowsAtOnce / open.length));
  const pieces = open.slice(0, rowsAtOnce).map(({ state, tokens, scores }) => {
    const read = scores.length - 1;
    return { state, tokens, scores, read, piece: tokens.subarray(read, Math.min(read + rows, tokens.length - 1)) };
  });
  const logits = await model.forward(pieces.map(({ state, piece }) => ({ state, tokens: piece, logits: "all" })));
  for (const [i, { tokens, scores, read, piece }] of pieces.entries()) {
    for (let k = 0; k < piece.length; k++) {
      const row = (logits[i] as Float32Array).subarray(k * vocabulary, (k + 1) * vocabulary);
      scores.push(scoreOf(row, tokens[read + k + 1] as number));
    }
  }
}

function scoreOf(logits: Float32Array, token: number): TokenScore {
  const own = logits[token] as number;
  return {
    logProbability: -negativeLogProbability(logits, token),
    isMostProbable: logits.every((logit) => logit <= own),
  };
}
