// What the scheduler knows a sequence by: its state in the backend, what is asked of it, and the bookkeeping that belongs
// to it. States and sessions own one each; users never see it.

import type { RuntimeState } from "../backends/backend.js";
import type { TokenChoice } from "../sampling/choose-token.js";

/** A sequence of tokens, as the model remembers it. */
export class Sequence {
  readonly runtimeState: RuntimeState;
  /**
   * The last token read, if it has not been run yet: a token waits until its logits are wanted, and is then run
   * together with what follows it.
   */
  pendingToken: number | undefined;
  /** Tokens read in all, the pending one included. */
  position = 0;
  /** What was asked of it and is not done, in order; the scheduler's alone, as is `busy`. */
  readonly queue: (Request | Access)[] = [];
  /** Whether a pass is using the state, or somebody has exclusive access to it. */
  busy = false;
  /** Why nothing more may be asked of it; what was asked before is still done. */
  ending: Error | undefined;
  /** Why the state cannot be used any more. */
  unusable: Error | undefined;
  /** Resolves when its memory has been returned; there when that was asked for. */
  disposing: Promise<void> | undefined;

  constructor(runtimeState: RuntimeState) {
    this.runtimeState = runtimeState;
  }
}

/** Tokens of one sequence that are to be run. */
export interface Work {
  readonly sequence: Sequence;
  /** The tokens, or a function that gives them when all that was asked of the sequence before has been done. */
  readonly tokens: Int32Array | (() => Int32Array);
  /** After which of the tokens logits are wanted. */
  readonly logits: "none" | "last" | "all";
  /** How a token is to be sampled from the logits of the last one. */
  readonly choice?: TokenChoice;
  /** Whether it continues what was admitted before, so that it does not count among the requests that wait. */
  readonly continues?: boolean;
  /** Called after each pass with the number of tokens that have been run. Nobody else has had the sequence since the pass. */
  readonly onRun?: (done: number) => void;
  /**
   * Called after that where the pass gives logits: with their rows, which are valid only until it returns, and the token that was
   * sampled, where a choice was given.
   */
  readonly onLogits?: (rows: Float32Array, token: number | undefined) => void;
}

/** Work in a sequence's queue. */
export interface Request extends Work {
  /** What is run; known when the request comes first. */
  run: Int32Array;
  done: number;
  /** Whether it counts among those that wait for their first pass. */
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
