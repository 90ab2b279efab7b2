// What a sequence has read, as a value outside of the model's states. A cache of prefixes is made of these.

import { StateError } from "../errors.js";
import { type SavedState, savedStateSize } from "./state-file.js";

/** What stands for the model of a snapshot. */
interface Owner {
  saveSnapshot(snapshot: Snapshot): Uint8Array;
  saveSnapshotInto(bytes: Uint8Array, snapshot: Snapshot): void;
}

/**
 * A copy of what a session has read, made by `session.snapshot()`: `model.session(snapshot)` continues from it. It never changes, and
 * belongs to the model that made it.
 */
export class Snapshot {
  readonly #owner: Owner;
  readonly #state: SavedState;

  /**
   * @param owner what stands for the model
   * @internal
   */
  constructor(owner: Owner, state: SavedState) {
    this.#owner = owner;
    this.#state = state;
  }

  /**
   * The state in a snapshot.
   *
   * @throws StateError for a snapshot of another model
   * @internal
   */
  static stateOf(snapshot: Snapshot, owner: Owner): SavedState {
    if (snapshot.#owner !== owner) throw new StateError("the snapshot belongs to another model");
    return snapshot.#state;
  }

  /** The number of tokens read, the pending one included. */
  get position(): number {
    return this.#state.position;
  }

  /** The last token read, if it was not run yet. */
  get pendingToken(): number | undefined {
    return this.#state.lastToken;
  }

  /** Whether the logits that follow the last token are known, so that the next one is sampled without a pass. */
  get hasLogits(): boolean {
    return this.#state.logits !== undefined;
  }

  /** A copy of the logits that follow the last token, where they are known. [vocabulary] */
  get logits(): Float32Array | undefined {
    return this.#state.logits?.slice();
  }

  /** The snapshot as bytes, as `session.save()` would have given them: `model.snapshot(bytes)` is the same again. */
  save(): Uint8Array {
    return this.#owner.saveSnapshot(this);
  }

  /**
   * How many bytes `save` gives.
   *
   * @internal
   */
  get savedBytes(): number {
    return savedStateSize(this.#state.values.length, this.#state.logits?.length);
  }

  /**
   * The same as `save` where there is memory for it.
   *
   * @param bytes `savedBytes` of them
   * @internal
   */
  saveInto(bytes: Uint8Array): void {
    this.#owner.saveSnapshotInto(bytes, this);
  }

  /** The memory that the snapshot takes, in bytes. */
  get bytes(): number {
    return this.#state.values.byteLength + (this.#state.logits?.byteLength ?? 0);
  }

  /** The snapshot as it was before its pending token; itself where none is pending. Both share their memory. */
  withoutPendingToken(): Snapshot {
    const { values, lastToken, position } = this.#state;
    if (lastToken === undefined) return this;
    return new Snapshot(this.#owner, { values, lastToken: undefined, logits: undefined, position: position - 1 });
  }
}
