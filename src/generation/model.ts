// A loaded model: what it is, a forward pass over any number of sequences, sessions, generation.

import type { BackendName, Runtime, RuntimeState } from "../backends/backend.js";
import type { WeightDType } from "../dtypes.js";
import { BackendError, OptionError } from "../errors.js";
import type { TokenChoice } from "../sampling/choose-token.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { Generation, type GenerationOptions } from "./generation.js";
import { packPasses } from "./passes.js";
import { Session } from "./session.js";
import { State } from "./state.js";

/** What a model is. */
export interface ModelInfo {
  /** Where it was loaded from. */
  readonly source: string;
  /** RWKV version: "4". */
  readonly version: string;
  readonly layers: number;
  readonly width: number;
  readonly hidden: number;
  readonly vocabulary: number;
  /** Number of weights. */
  readonly parameters: number;
  /** Type the weight matrices are computed with. */
  readonly dtype: WeightDType;
  readonly backend: BackendName;
  readonly threads: number;
  /** How long loading took, in milliseconds. */
  readonly loadMilliseconds: number;
}

/** Tokens of one sequence for a forward pass. */
export interface Segment {
  readonly state: State;
  readonly tokens: readonly number[];
  /** After which tokens logits are wanted. Default "last". */
  readonly logits?: "none" | "last" | "all";
}

/** What `load` puts together. */
export interface ModelParts {
  readonly info: ModelInfo;
  readonly runtime: Runtime;
  readonly tokenizer: () => Tokenizer;
  readonly fingerprint: number;
}

/** A loaded model. Made by `load`. */
export class Model {
  readonly info: ModelInfo;
  readonly #runtime: Runtime;
  readonly #tokenizer: () => Tokenizer;
  readonly #fingerprint: number;
  /** Returns the memory of states that were dropped without dispose(). */
  readonly #dropped = new FinalizationRegistry<RuntimeState>((state) => state.release());
  #queue: Promise<unknown> = Promise.resolve();
  #disposed = false;

  constructor(parts: ModelParts) {
    this.info = parts.info;
    this.#runtime = parts.runtime;
    this.#tokenizer = parts.tokenizer;
    this.#fingerprint = parts.fingerprint;
  }

  /**
   * The model's tokenizer.
   *
   * @throws TokenizerError when none was found beside the checkpoint and none was given
   */
  get tokenizer(): Tokenizer {
    return this.#tokenizer();
  }

  /**
   * Generates text after a prompt, streaming.
   *
   * @param prompt text, or token ids
   * @returns to be iterated with `for await`; its `result` tells how it went
   * @throws OptionError for options outside their range
   */
  generate(prompt: string | readonly number[], options: GenerationOptions = {}): Generation {
    return new Generation(this.session(), options, { prompt, disposeSession: true });
  }

  /**
   * A conversation: owns a state, reads text into it, generates from it.
   *
   * @param saved bytes from `session.save()`
   * @throws StateError when they are damaged or another model's
   */
  session(saved?: Uint8Array): Session {
    return new Session(this, this.createState(saved));
  }

  /** A state as before the first token, or as saved. */
  createState(saved?: Uint8Array): State {
    this.#checkAlive();
    const runtimeState = this.#runtime.createState();
    try {
      const state = new State(runtimeState, this.#fingerprint, this.info.vocabulary, (values) => {
        const copy = this.createState();
        copy.runtimeState.values.set(values);
        return copy;
      });
      if (saved) state.restore(saved);
      this.#dropped.register(state, runtimeState);
      return state;
    } catch (error) {
      runtimeState.release();
      throw error;
    }
  }

  /**
   * Runs tokens through the model and advances the states: all segments together, so that each weight is read once for
   * all of them. Calls wait for each other.
   *
   * @returns for each segment its logits: [wanted tokens, vocabulary], empty for "none"
   * @throws OptionError for token ids outside the vocabulary, or a state in two segments
   */
  forward(segments: readonly Segment[]): Promise<Float32Array[]> {
    this.#checkSegments(segments);
    const turn = this.#queue.then(() => this.#forward(segments));
    this.#queue = turn.catch(() => {});
    return turn;
  }

  /**
   * Runs tokens through the model, advances the states, and chooses the next token of each, where the logits are: they are
   * not copied.
   *
   * @returns for each segment the token that was chosen
   * @throws as `forward`; RwkvError where logits are not numbers
   * @internal
   */
  chooseNext(segments: readonly (Omit<Segment, "logits"> & { readonly choice: TokenChoice })[]): Promise<number[]> {
    this.#checkSegments(segments);
    const turn = this.#queue.then(async () => {
      const chosen: number[] = [];
      for (const pass of packPasses(segments, this.#runtime.maxTokens)) {
        const { tokens } = await this.#runtime.run(pass.map((part) => part.segment));
        pass
          .filter((part) => part.segment.choice)
          .forEach((part, i) => {
            chosen[part.index] = tokens[i] as number;
          });
      }
      return chosen;
    });
    this.#queue = turn.catch(() => {});
    return turn;
  }

  /** Waits for the pass in progress, then gives back threads and memory. */
  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.#queue;
    await this.#runtime.dispose();
  }

  async #forward(segments: readonly Segment[]): Promise<Float32Array[]> {
    const { vocabulary } = this.info;
    const rows = (s: Segment) =>
      s.logits === "all" ? s.tokens.length : s.logits === "none" || s.tokens.length === 0 ? 0 : 1;
    const results = segments.map((segment) => new Float32Array(rows(segment) * vocabulary));
    const filled = segments.map(() => 0);
    for (const pass of packPasses(segments, this.#runtime.maxTokens)) {
      const { logits } = await this.#runtime.run(pass.map((part) => part.segment));
      let at = 0;
      for (const { index, rowCount } of pass) {
        const size = rowCount * vocabulary;
        results[index]?.set(logits.subarray(at, at + size), filled[index]);
        filled[index] = (filled[index] as number) + size;
        at += size;
      }
    }
    return results;
  }

  #checkSegments(segments: readonly Segment[]): void {
    this.#checkAlive();
    const states = new Set<State>();
    for (const { state, tokens } of segments) {
      if (states.has(state)) throw new OptionError("segments", segments, "each state in one segment only");
      states.add(state);
      for (const token of tokens) {
        if (!Number.isInteger(token) || token < 0 || token >= this.info.vocabulary) {
          throw new OptionError("tokens", token, `token ids from 0 to ${this.info.vocabulary - 1}`);
        }
      }
    }
  }

  #checkAlive(): void {
    if (this.#disposed) throw new BackendError("the model was disposed");
  }
}
