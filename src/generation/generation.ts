// One generation: sample, decode, watch for stops, feed the token back, until something ends it. Iterating it streams text.

import type { StateError } from "../errors.js";
import { onAbort } from "./abort-signals.js";
import { asyncDispose } from "./async-dispose.js";
import {
  type GenerationOptions,
  type ResolvedGenerationOptions,
  resolveGenerationOptions,
} from "./generation-options.js";
import { GenerationProgress, type GenerationResult } from "./generation-progress.js";
import type { ModelContext } from "./model-context.js";
import { inNextTurn } from "./next-turn.js";
import { readTokens } from "./reading.js";
import type { Sequence } from "./sequence.js";
import { StopStrings } from "./stop-strings.js";
import { type SampledToken, TokenSampling } from "./token-sampling.js";

/** One step of a generation: a token, and the text that it completes. */
export interface GenerationStep extends Partial<SampledToken> {
  /**
   * The text that is emitted with this step. It is empty while a character is not complete, or while the text may be the beginning
   * of a stop string. The last step may have text alone: what was held back.
   */
  readonly text: string;
}

/** What a generation uses of its session. */
interface GeneratingSession {
  /** Takes the session, until `release` is called. `onDispose` is called when it is disposed of meanwhile. */
  acquire(onDispose: (error: StateError) => void): { sequence: Sequence; release: () => void };
  dispose(): Promise<void>;
}

/** What a generation begins with. */
interface Start {
  /** Tokens that are read first. */
  readonly prompt?: Int32Array;
  /** Whether the session is the generation's own. */
  readonly ownsSession?: boolean;
}

/**
 * A stream of text. Nothing happens until it is asked for: by iterating, `text()` or `result`. It goes no faster than it is asked
 * for, so that its session has read what was emitted, and no more than that. A loop that is left ends it.
 */
export class Generation implements AsyncIterable<string> {
  readonly #context: ModelContext;
  readonly #openSession: () => GeneratingSession;
  readonly #options: ResolvedGenerationOptions;
  readonly #start: Start;
  /** Ends the generation before its next token; set while it runs. */
  #cancel: (() => void) | undefined;
  #left = false;
  /** All steps so far: whoever iterates later sees them again. */
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
   * How the generation went, once it has ended, or the error that ended it. Where nobody iterates, asking for the result runs the
   * generation to its end.
   */
  get result(): Promise<GenerationResult> {
    if (!this.#result) {
      this.#result = new Promise((resolve, reject) => {
        this.#settle = { resolve, reject };
      });
      this.#result.catch(() => {}); // the iterator throws the same error; nobody need look here too
      if (this.#ended) this.#settleResult();
      else {
        // A loop that is about to begin sets the pace.
        inNextTurn(() => {
          if (!this.#iterated) this.#runToEnd().catch(() => {}); // the result tells
        });
      }
    }
    return this.#result;
  }

  /** Runs to the end and gives the whole text. */
  async text(): Promise<string> {
    await this.#runToEnd();
    return (await this.result).text;
  }

  /** Streams text, in pieces that are not empty. */
  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, void> {
    for await (const { text } of this.steps()) if (text) yield text;
  }

  /** Streams tokens with the text that they complete, and their log-probabilities where they were asked for. */
  async *steps(): AsyncGenerator<GenerationStep, void, void> {
    this.#iterated = true;
    let seen = 0;
    try {
      for (;;) {
        while (seen < this.#steps.length) yield this.#steps[seen++] as GenerationStep;
        if (!(await this.#advance(seen))) break;
      }
    } finally {
      // Left before its end.
      if (!this.#ended) await this.#leave();
    }
  }

  /** Ends the generation after the token in progress. */
  async [asyncDispose](): Promise<void> {
    if (!this.#ended) await this.#leave();
  }

  async #runToEnd(): Promise<void> {
    this.#iterated = true;
    while (await this.#advance(this.#steps.length)) {
      // Steps are kept for those who iterate.
    }
  }

  /** Makes the next step, unless there are more than `seen`. @returns whether there is one; @throws the error that ended it */
  async #advance(seen: number): Promise<boolean> {
    if (this.#steps.length > seen) return true;
    if (!this.#ended) {
      this.#advancing ??= this.#produce().finally(() => {
        this.#advancing = undefined;
      });
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
    }
  }

  /** Ends the generation after the token in progress, also while nobody asks for the next one. */
  async #leave(how: { readonly error?: unknown } = {}): Promise<void> {
    this.#left = true;
    this.#cancel?.();
    await this.#advancing;
    if (this.#ended) return;
    await this.#producer?.return().catch(() => {});
    this.#end(how);
  }

  /** Not a closure of what runs the generation, which would keep it alive. */
  static #leaveIt(this: void, generation: Generation): void {
    void generation.#leave();
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
      const { sequence, release } = session.acquire((error) => void this.#leave({ error }));
      this.#cancel = () => scheduler.cancel(sequence, aborted);
      const stopListening = signal && onAbort(signal, this as Generation, Generation.#leaveIt);
      try {
        const { prompt } = this.#start;
        if (prompt) {
          await readTokens(scheduler, sequence, prompt, onPromptProgress);
          progress.promptTokens = prompt.length;
        }
        const sampling = new TokenSampling(this.#context, this.#options);
        const isAdmitted = () => (prompt?.length ?? 0) > 1 || progress.tokens.length > 0;
        yield* this.#decode(progress, () => sampling.next(sequence, isAdmitted()));
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

  /** Text from tokens, until one of the stops. */
  async *#decode(
    progress: GenerationProgress,
    nextToken: () => Promise<SampledToken>,
  ): AsyncGenerator<GenerationStep, void, void> {
    const { maxTokens, stopTokens } = this.#options;
    const decoder = this.#context.tokenizer.stream();
    const stops = new StopStrings(this.#options.stop);
    while (progress.tokens.length < maxTokens && !this.#isAborted()) {
      const asked = performance.now();
      const sampled = await nextToken().catch((error) => {
        if (error !== aborted) throw error;
      });
      if (!sampled) break;
      progress.sampled(asked);
      if (stopTokens.has(sampled.token)) {
        progress.finish("stop", sampled.token);
        break;
      }
      progress.tokens.push(sampled.token);
      const { text, stop } = stops.push(decoder.push(sampled.token));
      progress.emit(text);
      if (stop !== undefined) progress.finish("stop", stop);
      yield { ...sampled, text };
      if (stop !== undefined) return;
    }
    // What was held back as the possible beginning of a stop string is text after all, unless it now completes one.
    const { text, stop } = stops.push(decoder.end());
    const rest = stop === undefined ? text + stops.end() : text;
    if (stop !== undefined) progress.finish("stop", stop);
    else if (progress.tokens.length >= maxTokens) progress.finish("length");
    progress.emit(rest);
    if (rest) yield { text: rest };
  }

  #isAborted(): boolean {
    return this.#left || this.#options.signal?.aborted === true;
  }
}

/** What cancelled work of a generation rejects with; seen nowhere else. */
const aborted = new Error("the generation was aborted");
