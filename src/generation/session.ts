// A conversation with a model: a state, text read into it, text generated from it.

import { RwkvError } from "../errors.js";
import { Generation, type GenerationOptions } from "./generation.js";
import type { Model } from "./model.js";
import type { State } from "./state.js";

/** Tokens between reports of progress and looks at the signal. */
const readPiece = 256;

/** Options of `session.read`. */
export interface ReadOptions {
  readonly signal?: AbortSignal;
  /** Called as tokens are read. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** Owns a state. Reading and generating take turns; a second call during one is an error. */
export class Session {
  readonly model: Model;
  readonly #state: State;
  #busy = false;

  constructor(model: Model, state: State) {
    this.model = model;
    this.#state = state;
  }

  /** How many tokens the session has read, generated ones included. */
  get position(): number {
    return this.#state.position;
  }

  /**
   * Reads text, or token ids, into the state.
   *
   * @returns the number of tokens read
   * @throws the signal's reason when aborted; what was read until then stays read
   */
  async read(input: string | readonly number[], options: ReadOptions = {}): Promise<number> {
    const tokens = typeof input === "string" ? this.model.tokenizer.encode(input) : input;
    const { state, release } = this.acquire();
    try {
      for (let at = 0; at < tokens.length; at += readPiece) {
        options.signal?.throwIfAborted();
        const piece = tokens.slice(at, at + readPiece);
        // The last token waits: when it is run, its logits are wanted too.
        const ready = state.pendingToken === undefined ? piece : [state.pendingToken, ...piece];
        await this.model.forward([{ state, tokens: ready.slice(0, -1), logits: "none" }]);
        state.pendingToken = ready.at(-1);
        state.position += piece.length;
        options.onProgress?.(at + piece.length, tokens.length);
      }
      return tokens.length;
    } finally {
      release();
    }
  }

  /**
   * Generates text from what was read, streaming.
   *
   * @throws OptionError for options outside their range
   */
  generate(options: GenerationOptions = {}): Generation {
    return new Generation(this, options);
  }

  /** The state as bytes, the same size whatever was read. `model.session(bytes)` goes on from it. */
  save(): Uint8Array {
    return this.#state.save();
  }

  /** A session of its own that goes on from here. */
  fork(): Session {
    return new Session(this.model, this.#state.copy());
  }

  /** Gives the state's memory back. */
  dispose(): void {
    this.#state.dispose();
  }

  /**
   * Takes the state for one piece of work, until `release` is called.
   *
   * @throws RwkvError while another has it
   * @internal
   */
  acquire(): { state: State; release: () => void } {
    if (this.#busy) throw new RwkvError("the session is reading or generating; wait for that, or fork it");
    this.#busy = true;
    const release = () => {
      this.#busy = false;
    };
    return { state: this.#state, release };
  }
}
