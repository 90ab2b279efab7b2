// What the scheduler knows a sequence by: its state in the backend, and the bookkeeping that belongs to it. States and sessions
// own one each; users never see it.

import type { RuntimeState } from "../backends/backend.js";

/** A sequence of tokens, as the model remembers it. */
export class Sequence {
  readonly runtimeState: RuntimeState;
  /**
   * The last token read, if it has not been run yet: a token waits until its logits are wanted, and is then run together with
   * what follows it.
   */
  pendingToken: number | undefined;
  /** Tokens read in all, the pending one included. */
  position = 0;
  /** Why the state cannot be used any more. */
  unusable: Error | undefined;
  /** Whether its memory has been returned. */
  released = false;

  constructor(runtimeState: RuntimeState) {
    this.runtimeState = runtimeState;
  }
}
