// What the scheduler knows a sequence by: its state in the backend, and the bookkeeping that belongs to it. States and sessions
// own one each; users never see it.

import type { RuntimeState } from "../backends/backend.js";
import type { Access, Request } from "./scheduler.js";

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
