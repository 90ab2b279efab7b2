// Counts and clocks of a generation in progress, and the result that they become.

/** Why a text ended: maxTokens, a stop string or token, the signal (or a loop that was left). */
export type FinishReason = "length" | "stop" | "aborted";

/** How a generation went. */
export interface GenerationResult {
  /** All text that was emitted. */
  readonly text: string;
  /** The tokens that were generated, a stop token not included. */
  readonly tokens: readonly number[];
  readonly finishReason: FinishReason;
  /** The stop string or token that ended it. */
  readonly stop?: string | number;
  /** Tokens read as prompt. */
  readonly promptTokens: number;
  /** Tokens generated, a stop token not included. */
  readonly generatedTokens: number;
  /** Prompt tokens read per second, the first token's logits included; 0 without a prompt. */
  readonly prefillTokensPerSecond: number;
  /** Generated tokens per second, sampling and decoding included, and what the caller did between them left out. */
  readonly decodeTokensPerSecond: number;
  /** The seed that gives this text again. */
  readonly seed: number;
}

/** Counts and clocks. */
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

  /** Takes a token that was asked for at `asked`. The first one's logits belong to the prompt. */
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
