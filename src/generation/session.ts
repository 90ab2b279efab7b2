// A conversation with a model: a state, text read into it, text generated from it.

import { RwkvError, StateError } from "../errors.js";
import { onAbort } from "./abort-signals.js";
import { asyncDispose } from "./async-dispose.js";
import { Generation } from "./generation.js";
import { checkFunction, checkObject, checkSignal, type GenerationOptions } from "./generation-options.js";
import type { ModelContext } from "./model-context.js";
import { type ReadOptions, readTokens } from "./reading.js";
import type { Sequence } from "./sequence.js";
import type { Snapshot } from "./snapshot.js";

/**
 * A conversation with a model, which owns a state. It reads or generates one thing at a time; a second call during
 * one is an error. `save` and `fork` may be called at any time: they wait for the pass in progress and for a text
 * that is being read.
 */
export class Session {
  readonly #context: ModelContext;
  readonly #sequence: Sequence;
  #disposed: StateError | undefined;
  #busy = false;
  /** Tells the current user of the session that it was disposed of. */
  #onDispose: ((error: StateError) => void) | undefined;

  /** @internal */
  constructor(context: ModelContext, sequence: Sequence) {
    this.#context = context;
    this.#sequence = sequence;
  }

  /** How many tokens the session has read, generated ones included. */
  get position(): number {
    return this.#sequence.position;
  }

  /**
   * Reads text, or token ids, into the state.
   *
   * @returns the number of tokens read
   * @throws the signal's reason when it is aborted, in which case the tokens read until then stay read; OptionError
   *   for token ids outside the vocabulary; StateError after dispose(); RwkvError while the session reads or
   *   generates
   */
  async read(input: string | ArrayLike<number>, options: ReadOptions = {}): Promise<number> {
    checkObject("options", options);
    const tokens = this.#context.tokensOf(input);
    checkSignal(options.signal);
    checkFunction("onProgress", options.onProgress);
    const { signal } = options;
    signal?.throwIfAborted();
    const { scheduler } = this.#context;
    const { sequence, release } = this.acquire();
    const stopListening = signal && onAbort(signal, sequence, (own) => scheduler.cancel(own, signal.reason));
    try {
      await readTokens(scheduler, sequence, tokens, options);
      return tokens.length;
    } finally {
      stopListening?.();
      release();
    }
  }

  /**
   * Generates text that continues what was read, as a stream. Nothing is computed until the text is asked for.
   *
   * @throws OptionError for options outside their range
   */
  generate(options: GenerationOptions = {}): Generation {
    return new Generation(this.#context, () => this, options);
  }

  /**
   * Saves the state as bytes, whose number does not depend on what was read. `model.session(bytes)` continues from it.
   *
   * @throws StateError after dispose()
   */
  save(): Promise<Uint8Array> {
    return this.#context.sequences.save(this.#sequence);
  }

  /**
   * Copies what the session has read out of the model: a value from which `model.session` makes any number of sessions that continue from
   * here. It needs no place among the model's states, and nobody need dispose of it.
   *
   * @throws StateError after dispose()
   */
  snapshot(): Promise<Snapshot> {
    return this.#context.sequences.snapshot(this.#sequence);
  }

  /**
   * Makes an independent session that continues from here.
   *
   * @throws StateError after dispose(); LimitError where there are too many states
   */
  async fork(): Promise<Session> {
    return new Session(this.#context, await this.#context.sequences.copy(this.#sequence));
  }

  /** Ends what is in progress with a StateError, and gives the state's memory back. */
  dispose(): Promise<void> {
    this.#disposed ??= new StateError("the session was disposed");
    this.#context.scheduler.cancel(this.#sequence, this.#disposed);
    this.#onDispose?.(this.#disposed);
    return this.#context.sequences.dispose(this.#sequence, this.#disposed);
  }

  [asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /**
   * Reserves the session for one piece of work until `release` is called.
   *
   * @param onDispose called when the session is disposed of meanwhile
   * @throws RwkvError while the session is reserved; StateError after dispose()
   * @internal
   */
  acquire(onDispose?: (error: StateError) => void): { sequence: Sequence; release: () => void } {
    if (this.#disposed) throw this.#disposed;
    if (this.#busy) throw new RwkvError("the session is reading or generating; wait for that, or fork it");
    this.#busy = true;
    this.#onDispose = onDispose;
    const release = () => {
      this.#busy = false;
      this.#onDispose = undefined;
    };
    return { sequence: this.#sequence, release };
  }
}
