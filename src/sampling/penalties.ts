// Presence and frequency penalties with decaying counts, as ChatRWKV applies them
// (https://github.com/BlinkDL/ChatRWKV, rwkv pipeline): only generated tokens count, and counts decay at every step.

import type { TokenAdjustments } from "./choose-token.js";

/** Counts of the tokens generated so far. */
export class TokenPenalties {
  readonly #indices = new Map<number, number>();
  readonly #tokens: number[] = [];
  readonly #counts: number[] = [];
  readonly #presence: number;
  readonly #frequency: number;
  readonly #decay: number;
  /** The amount that is always added to a token's logit. */
  readonly #fixed: ReadonlyMap<number, number>;
  /** The fixed amounts alone, which all tokens of a text without penalties share. */
  readonly #fixedAlone: TokenAdjustments;

  /** @param fixed amounts that are always added, by token */
  constructor(
    options: { presencePenalty: number; frequencyPenalty: number; penaltyDecay: number },
    fixed: ReadonlyMap<number, number>,
  ) {
    this.#presence = options.presencePenalty;
    this.#frequency = options.frequencyPenalty;
    this.#decay = options.penaltyDecay;
    this.#fixed = fixed;
    this.#fixedAlone = { tokens: [...fixed.keys()], amounts: [...fixed.values()] };
  }

  /**
   * The amounts to add to logits: -(presence + count * frequency) for each token that was generated, plus the fixed
   * amounts.
   */
  adjustments(): TokenAdjustments {
    if (this.#tokens.length === 0) return this.#fixedAlone;
    const fixed = this.#fixed;
    const tokens = this.#tokens.slice();
    const amounts = this.#counts.map(
      (count, i) => (fixed.get(tokens[i] as number) ?? 0) - this.#presence - count * this.#frequency,
    );
    for (const [token, amount] of fixed) {
      if (this.#indices.has(token)) continue;
      tokens.push(token);
      amounts.push(amount);
    }
    return { tokens, amounts };
  }

  /** Multiplies all counts by the decay, then counts `token`. */
  count(token: number): void {
    if (this.#presence === 0 && this.#frequency === 0) return;
    for (let i = 0; i < this.#counts.length; i++) this.#counts[i] = (this.#counts[i] as number) * this.#decay;
    let index = this.#indices.get(token);
    if (index === undefined) {
      index = this.#tokens.push(token) - 1;
      this.#indices.set(token, index);
      this.#counts.push(0);
    }
    this.#counts[index] = (this.#counts[index] as number) + 1;
  }
}
