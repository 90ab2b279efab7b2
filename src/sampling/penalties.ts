// Presence and frequency penalties with decaying counts, as ChatRWKV applies them
// (https://github.com/BlinkDL/ChatRWKV, rwkv pipeline): only generated tokens count, and counts fade with every step.

/** Counts of the tokens generated so far. */
export class TokenPenalties {
  readonly #counts = new Map<number, number>();
  readonly #presence: number;
  readonly #frequency: number;
  readonly #decay: number;

  constructor(options: { presencePenalty: number; frequencyPenalty: number; penaltyDecay: number }) {
    this.#presence = options.presencePenalty;
    this.#frequency = options.frequencyPenalty;
    this.#decay = options.penaltyDecay;
  }

  /** Subtracts presence + count * frequency from the logit of each token that was generated. */
  apply(logits: Float32Array): void {
    for (const [token, count] of this.#counts) {
      logits[token] = (logits[token] as number) - this.#presence - count * this.#frequency;
    }
  }

  /** Lets all counts decay, then counts `token`. */
  count(token: number): void {
    if (this.#presence === 0 && this.#frequency === 0) return;
    for (const [other, count] of this.#counts) this.#counts.set(other, count * this.#decay);
    this.#counts.set(token, (this.#counts.get(token) ?? 0) + 1);
  }
}
