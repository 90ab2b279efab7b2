// The state of one sequence: all that the model remembers of the tokens it has read, of a size that does not depend
// on them.

import { StateError } from "../errors.js";
import { asyncDispose } from "./async-dispose.js";
import type { Sequence } from "./sequence.js";
import type { SequenceStore } from "./sequence-store.js";

/**
 * The state of a sequence. `model.createState()` makes it and `model.forward()` advances it.
 *
 * Calls on one state are carried out in the order in which they were made. Copying or saving it while a pass is
 * running waits for the pass, so nobody ever sees half of a state.
 */
export class State {
  readonly #store: SequenceStore;
  readonly #sequence: Sequence;

  /** @internal */
  constructor(store: SequenceStore, sequence: Sequence) {
    this.#store = store;
    this.#sequence = sequence;
  }

  /**
   * Returns the sequence behind a state.
   *
   * @throws StateError for a state of another model
   * @internal
   */
  static sequenceOf(state: State, store: SequenceStore): Sequence {
    if (state.#store !== store) throw new StateError("the state belongs to another model");
    return state.#sequence;
  }

  /**
   * The last token read, if it has not been run yet: a session keeps it pending until its logits are wanted.
   * `model.forward` runs it before the tokens that it is given.
   */
  get pendingToken(): number | undefined {
    return this.#sequence.pendingToken;
  }

  /** The number of tokens read so far, the pending one included. */
  get position(): number {
    return this.#sequence.position;
  }

  /**
   * Copies the floats of the state, in the order that docs/model.md gives for each version.
   *
   * @throws StateError after dispose()
   */
  values(): Promise<Float32Array> {
    return this.#store.values(this.#sequence);
  }

  /**
   * Makes an independent state with the same content.
   *
   * @throws StateError after dispose(); LimitError when there are too many states
   */
  async copy(): Promise<State> {
    return new State(this.#store, await this.#store.copy(this.#sequence));
  }

  /**
   * Saves the state as bytes, whose number does not depend on what was read.
   *
   * @throws StateError after dispose()
   */
  save(): Promise<Uint8Array> {
    return this.#store.save(this.#sequence);
  }

  /**
   * Replaces the content of the state by a saved one.
   *
   * @throws StateError when the bytes are damaged, of another format, or of another model, and after dispose()
   */
  restore(bytes: Uint8Array): Promise<void> {
    return this.#store.restore(this.#sequence, bytes);
  }

  /** Gives the memory back, after all earlier calls on the state have been carried out. */
  dispose(): Promise<void> {
    return this.#store.dispose(this.#sequence);
  }

  [asyncDispose](): Promise<void> {
    return this.dispose();
  }
}
