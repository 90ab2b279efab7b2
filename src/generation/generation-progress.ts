// The counts and times of a generation in progress, from which its result is made.

/**
 * Why a text ended: maxTokens; a stop string or stop token, or a constraint that allows no more; or the signal (or a reader
 * that left its loop).
 */
export type FinishReason = "length" | "stop" | "aborted";

/** How a generation went. */
export interface GenerationResult {
  /** All text that was emitted. */
  readonly text: string;
  /**
   * The tokens that were generated, without a stop token. The session has read these and no others. Where a constraint
   * forced some, they are read together, so there may be more of them here than in a text that was left or stopped.
   */
  readonly tokens: readonly number[];
  readonly finishReason: FinishReason;
  /** The stop string or stop token that ended the text; absent if none did. */
  readonly stop?: string | number;
  /** Number of prompt tokens that were read. */
  readonly promptTokens: number;
  /** Number of tokens generated, without a stop token. */
  readonly generatedTokens: number;
  /** Prompt tokens read per second, up to the logits of the first generated token; 0 without a prompt. */
  readonly prefillTokensPerSecond: number;
  /**
   * Tokens generated per second, including sampling and decoding, without the time that the caller took between
   * tokens.
   */
  readonly decodeTokensPerSecond: number;
  /** The seed that was used; the same seed gives the same text. */
  readonly seed: number;
}

/** Counts tokens and measures times while a generation is in progress. */
export class GenerationProgress {
  readonly tokens: number[] = [];
  promptTokens = 0;
  readonly #seed: number;
  readonly #started = performance.now();
  #promptEnded: number | undefined;
  #decoding = 0;
  #text = "";
  #finishReason: FinishReason = "aborted";
  #stop: string | number | undefined;

  constructor(seed: number) {
    this.#seed = seed;
  }

  /**
   * Notes that a token was sampled that was requested at time `asked`. The time of the first one belongs to the
   * prompt.
   */
  sampled(asked: number): void {
    const now = performance.now();
    if (this.#promptEnded === undefined) this.#promptEnded = now;
    else this.#decoding += now - asked;
  }

  emit(text: string): void {
    this.#text += text;
  }

  finish(reason: FinishReason, stop?: string | number): void {
    this.#finishReason = reason;
    this.#stop = stop;
  }

  result(): GenerationResult {
    const perSecond = (tokens: number, milliseconds: number) => (milliseconds > 0 ? (tokens * 1000) / milliseconds : 0);
    const generatedTokens = this.tokens.length;
    return {
      text: this.#text,
      tokens: this.tokens.slice(),
      finishReason: this.#finishReason,
      ...(this.#stop !== undefined && { stop: this.#stop }),
      promptTokens: this.promptTokens,
      generatedTokens,
      prefillTokensPerSecond: perSecond(this.promptTokens, (this.#promptEnded ?? performance.now()) - this.#started),
      decodeTokensPerSecond: perSecond(Math.max(0, generatedTokens - 1), this.#decoding),
      seed: this.#seed,
    };
  }
}
