// The state of one sequence: all that the model remembers of the tokens it has read, in a few hundred kilobytes.

import { StateError } from "../errors.js";
import { asyncDispose } from "./async-dispose.js";
import type { Sequence } from "./sequence.js";
import type { SequenceStore } from "./sequence-store.js";

/**
 * A sequence's state. Made by `model.createState()`, advanced by `model.forward()`.
 *
 * Calls on one state are carried out in the order in which they were made: whoever copies or saves it while a pass is running waits
 * for the pass, and nobody ever sees half of it.
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
   * The sequence behind a state.
   *
   * @throws StateError for a state of another model
   * @internal
   */
  static sequenceOf(state: State, store: SequenceStore): Sequence {
    if (state.#store !== store) throw new StateError("the state belongs to another model");
    return state.#sequence;
  }

  /**
   * The last token read, if it has not been run yet: sessions keep it back until its logits are wanted. `model.forward` runs it
   * before the tokens that it is given.
   */
  get pendingToken(): number | undefined {
    return this.#sequence.pendingToken;
  }

  /** How many tokens have been read in all, the pending one included. */
  get position(): number {
    return this.#sequence.position;
  }

  /**
   * A copy of the floats: for RWKV-4 five vectors a layer (docs/model.md gives their order).
   *
   * @throws StateError after dispose()
   */
  values(): Promise<Float32Array> {
    return this.#store.values(this.#sequence);
  }

  /**
   * A state of its own with the same content.
   *
   * @throws StateError after dispose(); LimitError where there are too many states
   */
  async copy(): Promise<State> {
    return new State(this.#store, await this.#store.copy(this.#sequence));
  }

  /**
   * The state as bytes; the same size whatever was read.
   *
   * @throws StateError after dispose()
   */
  save(): Promise<Uint8Array> {
    return this.#store.save(this.#sequence);
  }

  /**
   * Replaces the state by one that was saved.
   *
   * @throws StateError when the bytes are damaged, of another format, or of another model, and after dispose()
   */
  restore(bytes: Uint8Array): Promise<void> {
    return this.#store.restore(this.#sequence, bytes);
  }

  /** Returns the memory, once what was asked of the state before has been done. */
  dispose(): Promise<void> {
    return this.#store.dispose(this.#sequence);
  }

  [asyncDispose](): Promise<void> {
    return this.dispose();
  }
}
