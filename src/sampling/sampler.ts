// Chooses the next token from logits: bias, penalties and bans, then cuts by probability, temperature, and a draw.
// The cuts and their order are those of the original RWKV sampler (https://github.com/BlinkDL/RWKV-LM, sample_logits).

import { RwkvError } from "../errors.js";
import { TokenPenalties } from "./penalties.js";
import type { RandomGenerator } from "./random.js";
import type { ResolvedSamplingOptions } from "./sampling-options.js";
import { WeightRanks } from "./weight-ranks.js";

/** Chooses tokens for one generation; remembers what it chose, for the penalties. */
export class Sampler {
  readonly #options: ResolvedSamplingOptions;
  readonly #random: RandomGenerator;
  readonly #penalties: TokenPenalties;
  /** Logits as adjusted, then weights: probabilities times a constant. */
  readonly #weights: Float32Array;
  readonly #ranks: WeightRanks;

  constructor(options: ResolvedSamplingOptions, random: RandomGenerator, vocabulary: number) {
    this.#options = options;
    this.#random = random;
    this.#penalties = new TokenPenalties(options);
    this.#weights = new Float32Array(vocabulary);
    this.#ranks = new WeightRanks(this.#weights);
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
    const kept = keptTokens(weights, this.#ranks, total, this.#options);
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
 * The tokens that all cuts keep, by id; undefined when every token is kept. Each cut keeps the tokens down to some rank,
 * so it is enough to know the last that each keeps.
 */
function keptTokens(
  weights: Float32Array,
  ranks: WeightRanks,
  total: number,
  { topP, topK, minP }: ResolvedSamplingOptions,
): number[] | undefined {
  const limited = topK > 0 && topK < weights.length;
  if (!limited && topP >= 1 && minP === 0) return undefined;
  if (limited || topP < 1) ranks.update();
  let floor = minP;
  if (topP < 1) {
    const last = ranks.find((_, sum) => sum > topP * total);
    floor = Math.max(floor, last === undefined ? 0 : (weights[last] as number));
  }
  const lastOfK = limited ? (ranks.find((count) => count >= topK) as number) : -1;
  const kept: number[] = [];
  for (let i = 0; i < weights.length; i++) {
    const weight = weights[i] as number;
    if (weight < floor) continue;
    const least = weights[lastOfK] ?? 0;
    if (limited && (weight < least || (weight === least && i > lastOfK))) continue;
    kept.push(i);
  }
  return kept;
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
