// Makes, copies, saves and disposes of a model's sequences, always through the scheduler, so that no pass is using
// them.

import type { Runtime, RuntimeState } from "../backends/backend.js";
import type { Checkpoint } from "../checkpoints/checkpoint.js";
import type { CheckpointInput } from "../checkpoints/checkpoint-input.js";
import { LimitError, StateError } from "../errors.js";
import { withState } from "./open-state.js";
import type { Scheduler } from "./scheduler.js";
import { Sequence } from "./sequence.js";
import { Snapshot } from "./snapshot.js";
import { decodeState, encodeState, encodeStateInto, type SavedState } from "./state-file.js";

/** The sequences of one model. */
export class SequenceStore {
  readonly #runtime: Runtime;
  readonly #scheduler: Scheduler;
  readonly #fingerprint: number;
  readonly #vocabulary: number;
  readonly #maxStates: number;
  /** Gives back the memory of sequences that were dropped without dispose(). */
  readonly #dropped = new FinalizationRegistry<RuntimeState>((state) => this.#release(state));
  #count = 0;

  /** @param maxStates how many sequences there may be at once */
  constructor(
    runtime: Runtime,
    scheduler: Scheduler,
    model: { readonly fingerprint: number; readonly vocabulary: number },
    maxStates: number,
  ) {
    this.#runtime = runtime;
    this.#scheduler = scheduler;
    this.#fingerprint = model.fingerprint;
    this.#vocabulary = model.vocabulary;
    this.#maxStates = maxStates;
  }

  /** The number of sequences that exist. */
  get count(): number {
    return this.#count;
  }

  /**
   * Makes a sequence, before its first token, or as it was saved or in a snapshot.
   *
   * @throws StateError when the bytes are damaged, of another format, or of another model; LimitError; BackendError
   */
  create(saved?: Uint8Array | Snapshot): Sequence {
    if (saved === undefined) return this.#create();
    return this.#create(saved instanceof Snapshot ? Snapshot.stateOf(saved, this) : this.#decode(saved));
  }

  /**
   * The state in a file, as `save` would give it.
   *
   * @param tuned the floats of the state that a file of tuned states says
   * @throws CheckpointError, StateError, OptionError as `model.readState`
   */
  read(input: CheckpointInput, tuned: (file: Checkpoint) => Promise<Float32Array>): Promise<Uint8Array> {
    const lengths = { state: this.#runtime.stateLength, logits: this.#vocabulary };
    return withState(input, lengths, async (state) => {
      if ("tuned" in state)
        return this.#encode({ values: await tuned(state.tuned), lastToken: undefined, logits: undefined, position: 0 });
      this.#decode(state.saved); // or it throws
      return state.saved;
    });
  }

  /** Copies the floats of a sequence's state. */
  values(sequence: Sequence): Promise<Float32Array> {
    return this.#scheduler.access(sequence, () => this.#runtime.readState(sequence.runtimeState));
  }

  copy(sequence: Sequence): Promise<Sequence> {
    return this.#scheduler.access(sequence, async () => this.#create(await this.#read(sequence)));
  }

  async snapshot(sequence: Sequence): Promise<Snapshot> {
    return new Snapshot(this, await this.#scheduler.access(sequence, () => this.#read(sequence)));
  }

  /**
   * @param areOwn whether the bytes are nobody else's, so that the snapshot may share their memory
   * @throws StateError when the bytes are damaged, of another format, or of another model
   */
  snapshotOf(saved: Uint8Array, areOwn = false): Snapshot {
    return new Snapshot(this, this.#decode(saved, areOwn));
  }

  /** A snapshot as `save` gives a sequence. @throws StateError for a snapshot of another model */
  saveSnapshot(snapshot: Snapshot): Uint8Array {
    return this.#encode(Snapshot.stateOf(snapshot, this));
  }

  /** The same into bytes, as many as `Snapshot.savedBytes`. */
  saveSnapshotInto(bytes: Uint8Array, snapshot: Snapshot): void {
    encodeStateInto(bytes, Snapshot.stateOf(snapshot, this), this.#fingerprint);
  }

  async save(sequence: Sequence): Promise<Uint8Array> {
    return this.#encode(await this.#scheduler.access(sequence, () => this.#read(sequence)));
  }

  async restore(sequence: Sequence, bytes: Uint8Array): Promise<void> {
    const { values, lastToken, logits, position } = this.#decode(bytes);
    await this.#scheduler.access(sequence, () => {
      this.#runtime.writeState(sequence.runtimeState, values);
      sequence.pendingToken = lastToken;
      sequence.logits = logits;
      sequence.position = position;
    });
  }

  /**
   * Disposes of a sequence after all earlier calls on it have been carried out.
   *
   * @param error the error with which later calls fail
   */
  dispose(sequence: Sequence, error: StateError = new StateError("the state was disposed")): Promise<void> {
    if (sequence.disposing) return sequence.disposing;
    const release = () => {
      sequence.unusable = error;
      this.#dropped.unregister(sequence);
      this.#release(sequence.runtimeState);
    };
    // Access is refused where the sequence cannot be used any more or the model was disposed of; then nothing is in
    // progress.
    sequence.disposing = this.#scheduler.access(sequence, release).catch(release);
    sequence.ending = error;
    return sequence.disposing;
  }

  #create(from?: SavedState): Sequence {
    if (this.#count >= this.#maxStates) throw new LimitError("states", this.#maxStates);
    this.#scheduler.checkAlive();
    const sequence = new Sequence(this.#runtime.createState(from?.values));
    sequence.pendingToken = from?.lastToken;
    sequence.logits = from?.logits;
    sequence.position = from?.position ?? 0;
    this.#count++;
    this.#dropped.register(sequence, sequence.runtimeState, sequence);
    return sequence;
  }

  #release(state: RuntimeState): void {
    this.#count--;
    state.release();
  }

  async #read(sequence: Sequence): Promise<SavedState> {
    const { pendingToken: lastToken, logits, position } = sequence;
    return { values: await this.#runtime.readState(sequence.runtimeState), lastToken, logits, position };
  }

  #encode(state: SavedState): Uint8Array {
    return encodeState(state, this.#fingerprint);
  }

  #decode(bytes: Uint8Array, areOwn = false): SavedState {
    const sizes = { length: this.#runtime.stateLength, vocabulary: this.#vocabulary };
    return decodeState(bytes, this.#fingerprint, sizes, areOwn);
  }
}
