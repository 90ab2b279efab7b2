// Presence and frequency penalties with decaying counts, as ChatRWKV applies them
// (https://github.com/BlinkDL/ChatRWKV, rwkv pipeline): only generated tokens count, and counts fade with every step.

import type { TokenAdjustments } from "./choose-token.js";

/** Counts of the tokens generated so far. */
export class TokenPenalties {
  readonly #places = new Map<number, number>();
  readonly #tokens: number[] = [];
  readonly #counts: number[] = [];
  readonly #presence: number;
  readonly #frequency: number;
  readonly #decay: number;

  constructor(options: { presencePenalty: number; frequencyPenalty: number; penaltyDecay: number }) {
    this.#presence = options.presencePenalty;
    this.#frequency = options.frequencyPenalty;
    this.#decay = options.penaltyDecay;
  }

  /**
   * What is added to logits: minus presence + count * frequency for each token that was generated, plus what is fixed.
   *
   * @param fixed amounts that are always added
   */
  adjustments(fixed: ReadonlyMap<number, number>): TokenAdjustments {
    const tokens = this.#tokens.slice();
    const amounts = this.#counts.map(
      (count, i) => (fixed.get(tokens[i] as number) ?? 0) - this.#presence - count * this.#frequency,
    );
    for (const [token, amount] of fixed) {
      if (this.#places.has(token)) continue;
      tokens.push(token);
      amounts.push(amount);
    }
    return { tokens, amounts };
  }

  /** Lets all counts decay, then counts `token`. */
  count(token: number): void {
    if (this.#presence === 0 && this.#frequency === 0) return;
    for (let i = 0; i < this.#counts.length; i++) this.#counts[i] = (this.#counts[i] as number) * this.#decay;
    let place = this.#places.get(token);
    if (place === undefined) {
      place = this.#tokens.push(token) - 1;
      this.#places.set(token, place);
      this.#counts.push(0);
    }
    this.#counts[place] = (this.#counts[place] as number) + 1;
  }
}
