// What the scheduler knows a sequence by: its state in the backend, what is asked of it, and the bookkeeping that belongs
// to it. States and sessions own one each; users never see it.

import type { RuntimeState } from "../backends/backend.js";
import type { TokenChoice } from "../sampling/choose-token.js";

/** A sequence of tokens that the model has read. */
export class Sequence {
  readonly runtimeState: RuntimeState;
  /**
   * The last token read, if it has not been run yet: a token waits until its logits are wanted, and is then run
   * together with what follows it.
   */
  pendingToken: number | undefined;
  /**
   * The logits that follow the last token read, where they are known: no token is pending then, and the next one can be sampled without
   * a pass. Whatever advances the sequence drops them. The array is never changed.
   */
  logits: Float32Array | undefined;
  /** The number of tokens read, the pending one included. */
  position = 0;
  /** Unfinished requests for the sequence, in order. Only the scheduler uses this and `busy`. */
  readonly queue: (Request | Access)[] = [];
  /** Whether a pass is using the state, or someone has exclusive access to it. */
  busy = false;
  /** The error for new requests, once the sequence is being disposed of; earlier requests are still carried out. */
  ending: Error | undefined;
  /** Why the state cannot be used any more. */
  unusable: Error | undefined;
  /** Resolves when the memory has been given back; present once dispose() was called. */
  disposing: Promise<void> | undefined;

  constructor(runtimeState: RuntimeState) {
    this.runtimeState = runtimeState;
  }
}

/**
 * Tokens of one sequence that are to be run. What asks for a token says all of the fields, in one order, be they undefined: engines look
 * up fields several times as fast in objects that have them alike, and each token makes one.
 */
export interface Work {
  readonly sequence: Sequence;
  /** The tokens, or a function that returns them once all earlier requests for the sequence have been carried out. */
  readonly tokens: Int32Array | (() => Int32Array);
  /** After which of the tokens logits are wanted. */
  readonly logits: "none" | "last" | "all";
  /** How a token is to be sampled from the logits of the last one. */
  readonly choice?: TokenChoice | undefined;
  /** Says that the logits are not looked at: they may then be missing. */
  readonly choiceOnly?: boolean;
  /**
   * How the tokens after the one that is sampled are to be sampled, as far as a backend may go on by itself; goes with `choice`. `onLogits` is
   * then called for each token, in order, but perhaps for the first alone.
   */
  readonly ahead?: readonly TokenChoice[] | undefined;
  /** Whether it continues work that was admitted before, and so does not count as a waiting request. */
  readonly continues?: boolean;
  /** Called after each pass with the number of tokens that have been run. No other work has used the sequence since the pass. */
  readonly onRun?: (done: number) => void;
  /**
   * Called after that where the pass gives logits: with their rows, which are valid only until it returns, and the token that was
   * sampled, where a choice was given.
   */
  readonly onLogits?: (rows: Float32Array, token: number | undefined) => void;
}

/** Work in a sequence's queue. */
export interface Request {
  readonly work: Work;
  /** The tokens to run, which are known when the request is at the head of the queue. */
  run: Int32Array;
  done: number;
  /** Whether it counts as waiting for its first pass. */
  waits: boolean;
  /** Why it ends before its next pass. */
  cancelled: { readonly reason: unknown } | undefined;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** Exclusive access to a state, in its sequence's queue. */
export interface Access {
  readonly use: () => void;
}
