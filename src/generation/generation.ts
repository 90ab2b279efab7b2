// One generation: sample a token, decode it, look for stops, and feed it back, until something ends the text.
// Iterating streams text.

import type { StateError } from "../errors.js";
import { inNextTurn } from "../next-event-loop-turn.js";
import { onAbort } from "./abort-signals.js";
import { asyncDispose } from "./async-dispose.js";
import {
  type GenerationOptions,
  type ResolvedGenerationOptions,
  resolveGenerationOptions,
} from "./generation-options.js";
import { GenerationProgress, type GenerationResult } from "./generation-progress.js";
import type { ModelContext } from "./model-context.js";
import { readTokens } from "./reading.js";
import type { Sequence } from "./sequence.js";
import { StopStrings } from "./stop-strings.js";
import { type SampledToken, TokenSampling } from "./token-sampling.js";

/** One step of a generation: a token and the text that it completes. */
export interface GenerationStep extends Partial<SampledToken> {
  /**
   * The text that this step emits. It is empty while a character is incomplete, or while the text may be the
   * beginning of a stop string. The last step may have text without a token: what was held back until then.
   */
  readonly text: string;
}

/** What a generation uses of its session. */
interface GeneratingSession {
  /** Takes the session, until `release` is called. `onDispose` is called when it is disposed of meanwhile. */
  acquire(onDispose: (error: StateError) => void): { sequence: Sequence; release: () => void };
  dispose(): Promise<void>;
}

/** What a generation starts with. */
interface Start {
  /** Tokens that are read before anything is generated. */
  readonly prompt?: Int32Array;
  /** Whether the session belongs to the generation, which then disposes of it. */
  readonly ownsSession?: boolean;
}

/**
 * A stream of text. Nothing is computed until the text is asked for: by iterating, by `text()` or by `result`. It
 * goes no faster than it is read, so its session has read what was emitted and no more. Leaving a loop over it ends
 * the generation.
 */
export class Generation implements AsyncIterable<string> {
  readonly #context: ModelContext;
  readonly #openSession: () => GeneratingSession;
  readonly #options: ResolvedGenerationOptions;
  readonly #start: Start;
  /** Ends the generation before its next token; set while it runs. */
  #cancel: (() => void) | undefined;
  #stopped = false;
  /** All steps so far, so that a later reader sees them too. */
  readonly #steps: GenerationStep[] = [];
  #producer: AsyncGenerator<GenerationStep, void, void> | undefined;
  #advancing: Promise<void> | undefined;
  #iterated = false;
  #progress: GenerationProgress | undefined;
  #ended: { readonly error?: unknown } | undefined;
  #result: Promise<GenerationResult> | undefined;
  #settle: { resolve: (result: GenerationResult) => void; reject: (error: unknown) => void } | undefined;

  /** @internal */
  constructor(
    context: ModelContext,
    openSession: () => GeneratingSession,
    options: GenerationOptions,
    start: Start = {},
  ) {
    this.#context = context;
    this.#openSession = openSession;
    this.#options = resolveGenerationOptions(options, context.vocabulary, context.tokenizer);
    this.#start = start;
  }

  /**
   * The result of the generation, once it has ended; rejects with the error that ended it. If nobody iterates, asking
   * for the result runs the generation to its end.
   */
  get result(): Promise<GenerationResult> {
    if (!this.#result) {
      this.#result = new Promise((resolve, reject) => {
        this.#settle = { resolve, reject };
      });
      this.#result.catch(() => {}); // the iterator throws the same error, so nobody need handle it here
      if (this.#ended) this.#settleResult();
      else {
        // A loop that begins in this turn determines the pace.
        inNextTurn(() => {
          if (!this.#iterated) this.#runToEnd().catch(() => {}); // the result rejects with the error
        });
      }
    }
    return this.#result;
  }

  /** Runs the generation to its end. @returns the whole text; rejects with the error that ended it */
  async text(): Promise<string> {
    await this.#runToEnd();
    return (await this.result).text;
  }

  /** Streams the text in non-empty pieces, which never cut a character. */
  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, void> {
    for await (const { text } of this.steps()) if (text) yield text;
  }

  /** Streams each token with the text that it completes, and with log-probabilities where they were asked for. */
  async *steps(): AsyncGenerator<GenerationStep, void, void> {
    this.#iterated = true;
    let seen = 0;
    try {
      for (;;) {
        while (seen < this.#steps.length) yield this.#steps[seen++] as GenerationStep;
        if (!(await this.#advance(seen))) break;
      }
    } finally {
      // The reader left its loop before the end.
      if (!this.#ended) await this.#stop();
    }
  }

  /** Ends the generation after the token in progress. */
  async [asyncDispose](): Promise<void> {
    if (!this.#ended) await this.#stop();
  }

  async #runToEnd(): Promise<void> {
    this.#iterated = true;
    while (await this.#advance(this.#steps.length)) {
      // Steps are kept for those who iterate.
    }
  }

  /**
   * Makes the next step unless there are more than `seen`.
   *
   * @returns whether there is one
   * @throws the error that ended the generation
   */
  async #advance(seen: number): Promise<boolean> {
    if (this.#steps.length > seen) return true;
    if (!this.#ended) {
      this.#advancing ??= this.#produce();
      await this.#advancing;
    }
    if (this.#steps.length > seen) return true;
    if (this.#ended && "error" in this.#ended) throw this.#ended.error;
    return !this.#ended;
  }

  async #produce(): Promise<void> {
    try {
      this.#progress ??= new GenerationProgress(this.#options.sampling.seed);
      this.#producer ??= this.#run(this.#progress);
      const { done, value } = await this.#producer.next();
      if (done) this.#end({});
      else this.#steps.push(value);
    } catch (error) {
      this.#end({ error });
    } finally {
      this.#advancing = undefined; // after the wait above, so after whoever asked has noted it
    }
  }

  /** Ends the generation after the token in progress, even while nobody asks for the next one. */
  async #stop(how: { readonly error?: unknown } = {}): Promise<void> {
    this.#stopped = true;
    this.#cancel?.();
    await this.#advancing;
    if (this.#ended) return;
    await this.#producer?.return().catch(() => {});
    this.#end(how);
  }

  /** A static method rather than a closure, which would keep the generation alive. */
  static #stopGeneration(this: void, generation: Generation): void {
    void generation.#stop();
  }

  #end(how: { readonly error?: unknown }): void {
    this.#ended ??= how;
    this.#settleResult();
  }

  #settleResult(): void {
    if (this.#ended && "error" in this.#ended) this.#settle?.reject(this.#ended.error);
    else this.#settle?.resolve((this.#progress ?? new GenerationProgress(this.#options.sampling.seed)).result());
  }

  async *#run(progress: GenerationProgress): AsyncGenerator<GenerationStep, void, void> {
    if (this.#isAborted()) return;
    const { signal, onPromptProgress } = this.#options;
    const { scheduler } = this.#context;
    const session = this.#openSession();
    try {
      const { sequence, release } = session.acquire((error) => void this.#stop({ error }));
      this.#cancel = () => scheduler.cancel(sequence, aborted);
      const stopListening = signal && onAbort(signal, this as Generation, Generation.#stopGeneration);
      try {
        const { prompt } = this.#start;
        if (prompt) {
          await readTokens(scheduler, sequence, prompt, onPromptProgress && { onProgress: onPromptProgress });
          progress.promptTokens = prompt.length;
        }
        yield* this.#decode(
          progress,
          sequence,
          new TokenSampling(this.#context, this.#options, this.#start.ownsSession === true),
        );
      } catch (error) {
        if (error !== aborted) throw error;
      } finally {
        stopListening?.();
        release();
      }
    } finally {
      if (this.#start.ownsSession) await session.dispose();
    }
  }

  /** Turns tokens into text until something ends it. */
  async *#decode(
    progress: GenerationProgress,
    sequence: Sequence,
    sampling: TokenSampling,
  ): AsyncGenerator<GenerationStep, void, void> {
    const { maxTokens, stopTokens } = this.#options;
    const decoder = this.#context.tokenizer.stream();
    const stops = new StopStrings(this.#options.stop);
    for (let ended = false; !ended && !this.#isAborted(); ) {
      const most = maxTokens - progress.tokens.length;
      if (most === 0) {
        progress.finish(sampling.mustEnd() ? "stop" : "length");
        break;
      }
      const asked = performance.now();
      const read: SampledToken[] = [];
      const continues = progress.promptTokens > 1 || progress.tokens.length > 0;
      try {
        if (await sampling.next(sequence, continues, most, read)) {
          progress.finish("stop");
          ended = true;
        }
      } catch (error) {
        if (error !== aborted) throw error;
        ended = true; // what was read until then is part of the text
      }
      if (read.length > 0) progress.sampled(asked);
      const last = read.at(-1);
      if (last && stopTokens.has(last.token)) {
        read.pop();
        progress.finish("stop", last.token);
        ended = true;
      }
      // The session has read all of them, even if the reader leaves before they are emitted.
      for (const { token } of read) progress.tokens.push(token);
      for (const sampled of read) {
        const { text, stop } = stops.push(decoder.push(sampled.token));
        progress.emit(text);
        if (stop !== undefined) progress.finish("stop", stop);
        yield sampled.logProbability === undefined ? { token: sampled.token, text } : { ...sampled, text };
        if (stop !== undefined) return;
      }
    }
    // What was held back as the possible beginning of a stop string is text after all, unless it now completes one.
    const { text, stop } = stops.push(decoder.end());
    const rest = stop === undefined ? text + stops.end() : text;
    if (stop !== undefined) progress.finish("stop", stop);
    progress.emit(rest);
    if (rest) yield { text: rest };
  }

  #isAborted(): boolean {
    return this.#stopped || this.#options.signal?.aborted === true;
  }
}

/** The reason with which cancelled work of a generation rejects. Users never see it. */
const aborted = new Error("the generation was aborted");
