// One generation: sample, decode, watch for stops, feed the token back, until something ends it. Iterating it streams text.

import { OptionError, RwkvError } from "../errors.js";
import { freshSeed, randomGenerator } from "../sampling/random.js";
import { Sampler } from "../sampling/sampler.js";
import {
  type ResolvedSamplingOptions,
  resolveSamplingOptions,
  type SamplingOptions,
} from "../sampling/sampling-options.js";
import type { Session } from "./session.js";
import type { State } from "./state.js";
import { StopStrings } from "./stop-strings.js";

/** How text is generated. */
export interface GenerationOptions extends SamplingOptions {
  /** Most tokens to generate, a whole number >= 1. Default 256. */
  maxTokens?: number;
  /** Ends the text where one of these would begin; no part of it is given out. */
  stop?: string | readonly string[];
  /** Ends the text when one of these ids is chosen. Default: the tokenizer's end-of-text token, if it has one. */
  stopTokens?: readonly number[];
  /** Ends the text after the token in progress; the finish reason is then "aborted". */
  signal?: AbortSignal;
  /** Called as the prompt is read. */
  onPromptProgress?: (done: number, total: number) => void;
}

/** Why a text ended: maxTokens, a stop string or token, the signal (or a loop that was left). */
export type FinishReason = "length" | "stop" | "aborted";

/** How a generation went. */
export interface GenerationResult {
  /** All text that was given out. */
  readonly text: string;
  readonly finishReason: FinishReason;
  /** The stop string or token that ended it. */
  readonly stop?: string | number;
  /** Tokens read as prompt. */
  readonly promptTokens: number;
  /** Tokens generated, a stop token not included. */
  readonly generatedTokens: number;
  /** Prompt tokens read per second, the first token's logits included; 0 without a prompt. */
  readonly prefillTokensPerSecond: number;
  /** Generated tokens per second, sampling and decoding included. */
  readonly decodeTokensPerSecond: number;
  /** The seed that gives this text again. */
  readonly seed: number;
}

interface Start {
  readonly prompt?: string | readonly number[];
  readonly disposeSession?: boolean;
}

/** A stream of text. Iterate it once, or await `text()`. */
export class Generation implements AsyncIterable<string> {
  /** Settles when the generation has ended: with how it went, or with the error that ended it. */
  readonly result: Promise<GenerationResult>;
  readonly #session: Session;
  readonly #options: GenerationOptions;
  readonly #sampling: ResolvedSamplingOptions;
  readonly #stops: readonly string[];
  readonly #stopTokens: ReadonlySet<number>;
  readonly #start: Start;
  readonly #seed: number;
  #settle!: { resolve: (result: GenerationResult) => void; reject: (error: unknown) => void };
  #iterated = false;

  constructor(session: Session, options: GenerationOptions, start: Start = {}) {
    const { vocabulary } = session.model.info;
    this.#session = session;
    this.#options = options;
    this.#start = start;
    this.#sampling = resolveSamplingOptions(options, vocabulary);
    this.#stops = checkStops(options.stop);
    this.#stopTokens = new Set(checkStopTokens(options.stopTokens, vocabulary) ?? defaultStopTokens(session));
    this.#seed = options.seed ?? freshSeed();
    const { maxTokens } = options;
    if (maxTokens !== undefined && !(Number.isInteger(maxTokens) && maxTokens >= 1)) {
      throw new OptionError("maxTokens", maxTokens, "a whole number >= 1");
    }
    this.result = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.result.catch(() => {}); // the iterator throws the same error; nobody need look here too
  }

  /** Runs to the end and gives the whole text. */
  async text(): Promise<string> {
    let text = "";
    for await (const piece of this) text += piece;
    return text;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, void> {
    if (this.#iterated) throw new RwkvError("a generation can be iterated once");
    this.#iterated = true;
    const progress = new Progress(this.#seed);
    try {
      yield* this.#run(progress);
      this.#settle.resolve(progress.result());
    } catch (error) {
      this.#settle.reject(error);
      throw error;
    } finally {
      this.#settle.resolve(progress.result()); // a loop that was left: no effect after the others
      if (this.#start.disposeSession) this.#session.dispose();
    }
  }

  async *#run(progress: Progress): AsyncGenerator<string, void, void> {
    const { signal, maxTokens = 256 } = this.#options;
    await this.#readPrompt(progress);
    if (signal?.aborted) return;
    const { model } = this.#session;
    const { state, release } = this.#session.acquire();
    try {
      const sampler = new Sampler(this.#sampling, randomGenerator(this.#seed));
      const decoder = model.tokenizer.stream();
      const stops = new StopStrings(this.#stops);
      while (progress.generatedTokens < maxTokens && !signal?.aborted) {
        const read = [this.#takePending(state)];
        const [token] = (await model.chooseNext([{ state, tokens: read, choice: sampler.next() }])) as [number];
        progress.promptDone();
        sampler.chosen(token);
        if (this.#stopTokens.has(token)) {
          progress.finish("stop", token);
          break;
        }
        state.pendingToken = token;
        state.position++;
        progress.generatedTokens++;
        const { text, stop } = stops.push(decoder.push(token));
        if (text) yield progress.give(text);
        if (stop !== undefined) return progress.finish("stop", stop);
      }
      // What was held back as the possible beginning of a stop string is text after all, unless it now completes one.
      const { text, stop } = stops.push(decoder.end());
      const rest = stop === undefined ? text + stops.end() : text;
      if (stop !== undefined) progress.finish("stop", stop);
      else if (progress.generatedTokens >= maxTokens) progress.finish("length");
      if (rest) yield progress.give(rest);
    } finally {
      release();
    }
  }

  async #readPrompt(progress: Progress): Promise<void> {
    const { prompt } = this.#start;
    if (prompt === undefined) return;
    const { signal, onPromptProgress } = this.#options;
    try {
      progress.promptTokens = await this.#session.read(prompt, {
        ...(signal && { signal }),
        ...(onPromptProgress && { onProgress: onPromptProgress }),
      });
    } catch (error) {
      if (!signal?.aborted) throw error;
    }
  }

  /**
   * The token whose logits come next: the last one read. Where there is none - at the very beginning, or after a stop token,
   * which is not kept - a new text begins, as in training: after end-of-text.
   */
  #takePending(state: State): number {
    const { pendingToken } = state;
    if (pendingToken !== undefined) {
      state.pendingToken = undefined;
      return pendingToken;
    }
    const { endOfText } = this.#session.model.tokenizer;
    if (endOfText === undefined) {
      const expected =
        "text to go on from (nothing was read yet, or since a stop token; no end-of-text token to begin with)";
      throw new OptionError("prompt", "", expected);
    }
    state.position++;
    return endOfText;
  }
}

/** Counts and clocks of a generation in progress. */
class Progress {
  promptTokens = 0;
  generatedTokens = 0;
  readonly #seed: number;
  readonly #started = performance.now();
  #decodeStarted: number | undefined;
  #text = "";
  #finishReason: FinishReason = "aborted";
  #stop: string | number | undefined;

  constructor(seed: number) {
    this.#seed = seed;
  }

  /** The first logits are there: the prompt's time is over. */
  promptDone(): void {
    this.#decodeStarted ??= performance.now();
  }

  give(text: string): string {
    this.#text += text;
    return text;
  }

  finish(reason: FinishReason, stop?: string | number): void {
    this.#finishReason = reason;
    this.#stop = stop;
  }

  result(): GenerationResult {
    const now = performance.now();
    const decodeStarted = this.#decodeStarted ?? now;
    const perSecond = (tokens: number, milliseconds: number) => (milliseconds > 0 ? (tokens * 1000) / milliseconds : 0);
    return {
      text: this.#text,
      finishReason: this.#finishReason,
      ...(this.#stop !== undefined && { stop: this.#stop }),
      promptTokens: this.promptTokens,
      generatedTokens: this.generatedTokens,
      prefillTokensPerSecond: perSecond(this.promptTokens, decodeStarted - this.#started),
      // The first token's logits belong to the prompt, so one token less took this time.
      decodeTokensPerSecond: perSecond(Math.max(0, this.generatedTokens - 1), now - decodeStarted),
      seed: this.#seed,
    };
  }
}

function checkStops(stop: string | readonly string[] | undefined): readonly string[] {
  const stops = stop === undefined ? [] : typeof stop === "string" ? [stop] : stop;
  for (const text of stops) {
    if (typeof text !== "string" || text === "") throw new OptionError("stop", text, "strings that are not empty");
  }
  return stops;
}

function checkStopTokens(ids: readonly number[] | undefined, vocabulary: number): readonly number[] | undefined {
  for (const id of ids ?? []) {
    if (!Number.isInteger(id) || id < 0 || id >= vocabulary) {
      throw new OptionError("stopTokens", id, `token ids from 0 to ${vocabulary - 1}`);
    }
  }
  return ids;
}

function defaultStopTokens(session: Session): readonly number[] {
  const { endOfText } = session.model.tokenizer;
  return endOfText === undefined ? [] : [endOfText];
}
