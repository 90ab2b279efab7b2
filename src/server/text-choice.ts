// One of the texts of a request: its steps, how it ends, and what it leaves.

import { asyncDispose } from "../generation/async-dispose.js";
import type { Generation, GenerationStep } from "../generation/generation.js";
import type { FinishReason, GenerationResult } from "../generation/generation-progress.js";
import type { Session } from "../generation/session.js";
import type { Snapshot } from "../generation/snapshot.js";
import type { Metrics } from "./metrics.js";
import type { TextTrace } from "./tracing.js";

/** A text that has ended by itself. */
export interface WrittenText {
  /** The state that it began with, with the logits that follow. */
  readonly before: Snapshot;
  /** The state that has read its tokens. */
  readonly after: Snapshot;
  /** The text, without what ended it. */
  readonly text: string;
  /** Its tokens, those of a text that ended it included. */
  readonly tokens: readonly number[];
}

/** One of the texts of a request. */
export class TextChoice {
  readonly index: number;
  /** @internal */
  readonly session: Session;
  readonly #generation: Generation;
  readonly #metrics: Metrics;
  readonly #asked: number;
  readonly #trace: TextTrace;
  #ending: Promise<void> | undefined;
  #resolveEnded: () => void = () => {};
  /** Resolves when the text has ended and its session is gone. */
  readonly ended: Promise<void>;
  /** Called with a text that has ended by itself, before its session goes. @internal */
  onText: ((answer: GenerationResult) => Promise<void>) | undefined;
  /** The text with its states, once all steps were taken; undefined for one that was ended from outside. */
  written: WrittenText | undefined;
  #tokens = 0;
  #reason: FinishReason | undefined;
  #stop: string | number | undefined;

  /** @param asked the time of the request, by `performance.now()` */
  constructor(
    index: number,
    session: Session,
    generation: Generation,
    metrics: Metrics,
    asked: number,
    trace: TextTrace,
  ) {
    this.index = index;
    this.session = session;
    this.#generation = generation;
    this.#metrics = metrics;
    this.#asked = asked;
    this.#trace = trace;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  /** Tokens written so far. */
  get tokens(): number {
    return this.#tokens;
  }

  /** Why the text ended, as OpenAI's API has it: one that was ended from outside is one that was cut off. */
  get finishReason(): "stop" | "length" {
    return this.#reason === "stop" ? "stop" : "length";
  }

  /** The stop string or token that ended the text. */
  get stop(): string | number | undefined {
    return this.#stop;
  }

  /** The text, step by step; no faster than it is asked for. Its session is gone when the last step has been taken. */
  async *steps(): AsyncGenerator<GenerationStep, void, void> {
    let last = this.#asked;
    try {
      for await (const step of this.#generation.steps()) {
        const now = performance.now();
        if (step.token !== undefined) {
          const histogram = this.#tokens === 0 ? this.#metrics.firstTokenSeconds : this.#metrics.tokenSeconds;
          histogram.observe((now - last) / 1000);
          this.#metrics.generatedTokens.inc();
          this.#tokens++;
        }
        yield step;
        last = performance.now();
      }
      const result = await this.#generation.result;
      this.#reason = result.finishReason;
      this.#stop = result.stop;
      if (result.finishReason !== "aborted") await this.onText?.(result);
    } finally {
      await this.end();
    }
  }

  /** Ends the text where it is, and gives back what it holds. */
  end(): Promise<void> {
    this.#ending ??= this.#end().finally(this.#resolveEnded);
    return this.#ending;
  }

  /** The generation first: a session that goes before it would make its end an error. */
  async #end(): Promise<void> {
    await this.#generation[asyncDispose]();
    await this.session.dispose();
    this.#trace.end(this.#tokens, this.#reason ?? "aborted");
  }
}
