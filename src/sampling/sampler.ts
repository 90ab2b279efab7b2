// What one generation asks of the choice of each token: its options, the next random number, and the penalties for what it
// chose before.

import type { TokenChoice } from "./choose-token.js";
import { TokenPenalties } from "./penalties.js";
import type { RandomGenerator } from "./random.js";
import type { ResolvedSamplingOptions } from "./sampling-options.js";

/** Makes the choices of one generation; is told what came of them. */
export class Sampler {
  readonly #options: ResolvedSamplingOptions;
  readonly #random: RandomGenerator;
  readonly #penalties: TokenPenalties;
  /** Bias, and -Infinity for banned tokens. */
  readonly #fixed: ReadonlyMap<number, number>;

  constructor(options: ResolvedSamplingOptions, random: RandomGenerator) {
    this.#options = options;
    this.#random = random;
    this.#penalties = new TokenPenalties(options);
    const bias = Object.entries(options.logitBias).map(([id, amount]) => [Number(id), amount] as const);
    const banned = options.bannedTokens.map((id) => [id, Number.NEGATIVE_INFINITY] as const);
    this.#fixed = new Map([...bias, ...banned]);
  }

  /** How the next token is to be chosen. Takes a random number, but for temperature 0, which needs none. */
  next(): TokenChoice {
    const { temperature, topP, topK, minP } = this.#options;
    const uniform = temperature === 0 ? 0 : this.#random.uniform();
    return { temperature, topP, topK, minP, uniform, adjustments: this.#penalties.adjustments(this.#fixed) };
  }

  /** Counts the token that was chosen. */
  chosen(token: number): void {
    this.#penalties.count(token);
  }
}
