// A conversation with a model: a state, text read into it, text generated from it.

import { RwkvError, StateError } from "../errors.js";
import { onAbort } from "./abort-signals.js";
import { asyncDispose } from "./async-dispose.js";
import { Generation } from "./generation.js";
import { checkFunction, checkObject, checkSignal, type GenerationOptions } from "./generation-options.js";
import type { ModelContext } from "./model-context.js";
import { type ReadOptions, readTokens } from "./reading.js";
import type { Sequence } from "./sequence.js";

/**
 * Owns a state. Reading and generating take turns; a second call during one is an error. Saving and forking may be done at any
 * time: they wait for the pass in progress, and for a text that is being read, and see the session as it is then.
 */
export class Session {
  readonly #context: ModelContext;
  readonly #sequence: Sequence;
  #disposed: StateError | undefined;
  #busy = false;
  /** Tells whoever has the session that it was disposed of. */
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
   * @throws the signal's reason when aborted; what was read until then stays read. RwkvError while the session reads or generates
   */
  async read(input: string | ArrayLike<number>, options: ReadOptions = {}): Promise<number> {
    checkObject("options", options);
    const tokens = this.#context.tokensOf(input);
    checkSignal(options.signal);
    checkFunction("onProgress", options.onProgress);
    const { signal, onProgress } = options;
    signal?.throwIfAborted();
    const { scheduler } = this.#context;
    const { sequence, release } = this.acquire();
    const stopListening = signal && onAbort(signal, sequence, (own) => scheduler.cancel(own, signal.reason));
    try {
      await readTokens(scheduler, sequence, tokens, onProgress);
      return tokens.length;
    } finally {
      stopListening?.();
      release();
    }
  }

  /**
   * Generates text from what was read, streaming. Nothing happens until the text is asked for.
   *
   * @throws OptionError for options outside their range
   */
  generate(options: GenerationOptions = {}): Generation {
    return new Generation(this.#context, () => this, options);
  }

  /**
   * The state as bytes, the same size whatever was read. `model.session(bytes)` continues from it.
   *
   * @throws StateError after dispose()
   */
  save(): Promise<Uint8Array> {
    return this.#context.sequences.save(this.#sequence);
  }

  /**
   * A session of its own that continues from here.
   *
   * @throws StateError after dispose(); LimitError where there are too many states
   */
  async fork(): Promise<Session> {
    return new Session(this.#context, await this.#context.sequences.copy(this.#sequence));
  }

  /** Ends what is in progress, with a StateError, and returns the state's memory. */
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
   * Takes the session for one piece of work, until `release` is called.
   *
   * @param onDispose called when the session is disposed of meanwhile
   * @throws RwkvError while another has it; StateError after dispose()
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
