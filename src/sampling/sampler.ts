// Samples the tokens of one text, with its options, its random numbers, and penalties for the tokens sampled before.

import { OptionError } from "../errors.js";
import { chooseToken, type TokenChoice } from "./choose-token.js";
import { TokenPenalties } from "./penalties.js";
import { type RandomGenerator, randomGenerator } from "./random.js";
import { type ResolvedSamplingOptions, resolveSamplingOptions, type SamplingOptions } from "./sampling-options.js";

/**
 * Samples one token after another from logits, as `generate` does, for programs that call `model.forward` themselves.
 * Use one sampler for each text: penalties depend on the tokens before, and random numbers on how many there were.
 */
export class Sampler {
  /** The seed in use; the same seed samples the same tokens. */
  readonly seed: number;
  readonly #options: ResolvedSamplingOptions;
  readonly #random: RandomGenerator;
  readonly #penalties: TokenPenalties;
  /** The length of the logits that the options were checked against; 0 before the first. */
  #vocabulary = 0;

  /** Makes a sampler. @throws OptionError for options outside their range */
  constructor(options: SamplingOptions = {}) {
    if (typeof options !== "object" || options === null) throw new OptionError("options", options, "an object");
    this.#options = resolveSamplingOptions(options, Number.MAX_SAFE_INTEGER);
    this.seed = this.#options.seed;
    this.#random = randomGenerator(this.seed);
    const bias = Object.entries(this.#options.logitBias).map(([id, amount]) => [Number(id), amount] as const);
    const banned = this.#options.bannedTokens.map((id) => [id, Number.NEGATIVE_INFINITY] as const);
    this.#penalties = new TokenPenalties(this.#options, new Map([...bias, ...banned]));
  }

  /**
   * Samples the next token, and counts it for the penalties.
   *
   * @param logits one row of logits, of the whole vocabulary, which is not changed
   * @throws OptionError for a row of another length than before, and when logitBias or bannedTokens name a token
   *   without a logit; RwkvError when logits are not numbers
   */
  sample(logits: Float32Array): number {
    if (!(logits instanceof Float32Array) || logits.length === 0) {
      throw new OptionError("logits", logits, "a Float32Array, one row of the whole vocabulary");
    }
    if (this.#vocabulary !== 0 && logits.length !== this.#vocabulary) {
      throw new OptionError("logits", logits, `${this.#vocabulary} floats, as in the row before`);
    }
    if (logits.length !== this.#vocabulary) {
      resolveSamplingOptions(this.#options, logits.length);
      this.#vocabulary = logits.length;
    }
    const token = chooseToken(logits, this.next());
    this.accept(token);
    return token;
  }

  /**
   * How the next token is to be sampled. Uses up a random number, except at temperature 0.
   *
   * @internal
   */
  next(mask?: Uint32Array): TokenChoice {
    const { temperature, topP, topK, minP } = this.#options;
    const uniform = temperature === 0 ? 0 : this.#random.uniform();
    const adjustments = this.#penalties.adjustments();
    return { temperature, topP, topK, minP, uniform, adjustments, mask };
  }

  /**
   * Counts a token that was sampled.
   *
   * @internal
   */
  accept(token: number): void {
    this.#penalties.count(token);
  }
}
