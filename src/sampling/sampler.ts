// Chooses the next token from logits: bias, penalties and bans, then cuts by probability, temperature, and a draw.
// The cuts and their order are those of the original RWKV sampler (https://github.com/BlinkDL/RWKV-LM, sample_logits).

import { RwkvError } from "../errors.js";
import { TokenPenalties } from "./penalties.js";
import type { RandomGenerator } from "./random.js";
import type { ResolvedSamplingOptions } from "./sampling-options.js";

/** Chooses tokens for one generation; remembers what it chose, for the penalties. */
export class Sampler {
  readonly #options: ResolvedSamplingOptions;
  readonly #random: RandomGenerator;
  readonly #penalties: TokenPenalties;
  /** Logits as adjusted, then weights: probabilities times a constant. */
  readonly #weights: Float32Array;

  constructor(options: ResolvedSamplingOptions, random: RandomGenerator, vocabulary: number) {
    this.#options = options;
    this.#random = random;
    this.#penalties = new TokenPenalties(options);
    this.#weights = new Float32Array(vocabulary);
  }

  /**
   * Chooses a token.
   *
   * @param logits of the whole vocabulary; left as they are
   * @throws RwkvError when no logit is a finite number
   */
  choose(logits: Float32Array): number {
    const weights = this.#weights;
    weights.set(logits);
    for (const [id, bias] of Object.entries(this.#options.logitBias))
      weights[Number(id)] = (weights[Number(id)] as number) + bias;
    this.#penalties.apply(weights);
    for (const id of this.#options.bannedTokens) weights[id] = Number.NEGATIVE_INFINITY;

    const best = largest(weights);
    const token = this.#options.temperature === 0 ? best : this.#draw(weights, weights[best] as number);
    this.#penalties.count(token);
    return token;
  }

  #draw(weights: Float32Array, max: number): number {
    let total = 0;
    for (let i = 0; i < weights.length; i++) {
      const weight = Math.exp((weights[i] as number) - max);
      weights[i] = weight;
      total += weights[i] as number;
    }
    const kept = keptTokens(weights, total, this.#options);
    return drawFrom(weights, kept, this.#options.temperature, this.#random.uniform());
  }
}

function largest(logits: Float32Array): number {
  let best = -1;
  let value = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) {
    const logit = logits[i] as number;
    if (Number.isNaN(logit) || logit === Number.POSITIVE_INFINITY) {
      throw new RwkvError(`the logit of token ${i} is ${logit}; the model's weights are probably damaged`);
    }
    if (logit > value) {
      value = logit;
      best = i;
    }
  }
  if (best < 0) throw new RwkvError("every logit is -Infinity; the model's weights are probably damaged");
  return best;
}

/**
 * The tokens that all cuts keep, by id; undefined when every token is kept. Each cut keeps a prefix of the tokens ordered by
 * probability, so only as many tokens are sorted as the longest prefix may need: those within a factor of the most
 * probable, a factor that is widened until the prefix ends inside.
 */
function keptTokens(weights: Float32Array, total: number, options: ResolvedSamplingOptions): number[] | undefined {
  const { topP, topK, minP } = options;
  const unlimited = (topK === 0 || topK >= weights.length) && topP >= 1;
  if (unlimited && minP === 0) return undefined;
  for (let threshold = 2 ** -6; ; threshold *= 2 ** -6) {
    const floor = threshold < 1e-45 ? 0 : Math.max(threshold, minP);
    const ids: number[] = [];
    for (let i = 0; i < weights.length; i++) if ((weights[i] as number) >= floor) ids.push(i);
    ids.sort((a, b) => (weights[b] as number) - (weights[a] as number) || a - b);
    const length = prefixLength(weights, total, ids, options);
    const complete = floor === 0 || floor === minP || length < ids.length;
    if (complete) return ids.slice(0, length).sort((a, b) => a - b);
  }
}

/** How many of the sorted tokens the cuts keep; all of them when the prefix may go on beyond. */
function prefixLength(
  weights: Float32Array,
  total: number,
  ids: readonly number[],
  { topP, topK, minP }: ResolvedSamplingOptions,
): number {
  const limit = topK > 0 ? Math.min(topK, ids.length) : ids.length;
  let sum = 0;
  let cutoff = minP;
  for (let i = 0; i < limit; i++) {
    const weight = weights[ids[i] as number] as number;
    if (weight < cutoff) return i;
    sum += weight;
    // From here on only tokens as probable as this one are kept.
    if (topP < 1 && sum > topP * total) cutoff = Math.max(cutoff, weight);
  }
  return limit;
}

/** Draws from weight^(1/temperature), walking the tokens by id. */
function drawFrom(
  weights: Float32Array,
  kept: readonly number[] | undefined,
  temperature: number,
  uniform: number,
): number {
  const count = kept ? kept.length : weights.length;
  const id = (i: number) => (kept ? (kept[i] as number) : i);
  const powered = (i: number) => {
    const weight = weights[id(i)] as number;
    return temperature === 1 ? weight : weight ** (1 / temperature);
  };
  let total = 0;
  for (let i = 0; i < count; i++) total += powered(i);
  let left = uniform * total;
  let last = 0;
  for (let i = 0; i < count; i++) {
    const weight = powered(i);
    if (weight === 0) continue;
    last = i;
    left -= weight;
    if (left < 0) break;
  }
  return id(last);
}
