// The state of one sequence: all that the model remembers of the tokens it has read, in a few hundred kilobytes.

import type { RuntimeState } from "../backends/backend.js";
import { StateError } from "../errors.js";
import { decodeState, encodeState } from "./state-file.js";

/** A sequence's state. Made by `model.createState()`, advanced by `model.forward()`. */
export class State {
  /**
   * The last token read, if it is not in the values yet: sessions keep it back until its logits are wanted. Whoever goes on
   * from a session's state with `model.forward` gives it this token first.
   */
  pendingToken: number | undefined;
  /** Tokens read in all, the pending one included. */
  position = 0;
  readonly #runtimeState: RuntimeState;
  readonly #fingerprint: number;
  readonly #vocabulary: number;
  readonly #create: (values: Float32Array) => State;
  #disposed = false;

  constructor(
    runtimeState: RuntimeState,
    fingerprint: number,
    vocabulary: number,
    create: (values: Float32Array) => State,
  ) {
    this.#runtimeState = runtimeState;
    this.#fingerprint = fingerprint;
    this.#vocabulary = vocabulary;
    this.#create = create;
  }

  /** The floats: for RWKV-4 five vectors a layer (docs/model.md gives their order). */
  get values(): Float32Array {
    return this.runtimeState.values;
  }

  /** Where the backend keeps it. @throws StateError after dispose() */
  get runtimeState(): RuntimeState {
    if (this.#disposed) throw new StateError("the state was disposed");
    return this.#runtimeState;
  }

  /** A state of its own with the same content. */
  copy(): State {
    const copy = this.#create(this.values);
    copy.pendingToken = this.pendingToken;
    copy.position = this.position;
    return copy;
  }

  /** The state as bytes; the same size whatever was read. */
  save(): Uint8Array {
    return encodeState(
      { values: this.values, lastToken: this.pendingToken, position: this.position },
      this.#fingerprint,
    );
  }

  /** @throws StateError when the bytes are damaged, of another format, or of another model */
  restore(bytes: Uint8Array): void {
    const saved = decodeState(bytes, this.#fingerprint, this.values.length, this.#vocabulary);
    this.values.set(saved.values);
    this.pendingToken = saved.lastToken;
    this.position = saved.position;
  }

  /** Gives the memory back. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#runtimeState.release();
  }
}
