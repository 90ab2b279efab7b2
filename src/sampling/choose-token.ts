// Samples a token from logits, in the plain form: adjustments, cuts by probability, temperature, and then a sample.
// The cuts and their order are those of the original RWKV sampler (https://github.com/BlinkDL/RWKV-LM,
// sample_logits). The kernel backends do the same in kernels/choose.c.

import { RwkvError } from "../errors.js";
import { WeightRanks } from "./weight-ranks.js";

/** How one token is to be sampled. */
export interface TokenChoice {
  readonly temperature: number;
  readonly topP: number;
  readonly topK: number;
  readonly minP: number;
  /** The uniform random number that decides which token is sampled, in [0, 1). */
  readonly uniform: number;
  /** Amounts that are added to the logits of some tokens; -Infinity bans a token. */
  readonly adjustments: TokenAdjustments;
  /** A bit for each token, lowest first, that is set where the token may be sampled. Without a mask all may. */
  readonly mask?: Uint32Array | undefined;
}

/** Amounts by token. Each token occurs at most once. */
export interface TokenAdjustments {
  readonly tokens: readonly number[];
  readonly amounts: readonly number[];
}

/**
 * Samples a token.
 *
 * @param logits the logits of the whole vocabulary, which are not changed
 * @throws RwkvError when a logit is NaN or +Infinity, or all are -Infinity
 */
export function chooseToken(logits: Float32Array, choice: TokenChoice): number {
  const adjusted = logits.slice();
  choice.adjustments.tokens.forEach((token, i) => {
    adjusted[token] = (adjusted[token] as number) + Math.fround(choice.adjustments.amounts[i] as number);
  });
  const { mask, temperature } = choice;
  if (mask) {
    for (let token = 0; token < adjusted.length; token++) {
      if ((((mask[token >>> 5] ?? 0) >>> (token & 31)) & 1) === 0) adjusted[token] = Number.NEGATIVE_INFINITY;
    }
  }
  const best = largest(adjusted);
  if (temperature === 0) return best;
  const max = adjusted[best] as number;
  const weights = new Float32Array(adjusted.length);
  for (let i = 0; i < weights.length; i++) weights[i] = power((adjusted[i] as number) - max);
  const isKept = cutsOf(weights, choice);
  let total = 0;
  for (let i = 0; i < weights.length; i++) {
    if (!isKept(i)) weights[i] = 0;
    // Probabilities to the power 1 / temperature, up to a common factor.
    else if (temperature !== 1) weights[i] = power(((adjusted[i] as number) - max) / temperature);
    total += weights[i] as number;
  }
  return sampleIndex(weights, choice.uniform * total);
}

/** The exponential of a number that is at most 0; 0 where float32 has no normal number for it, as in the kernels. */
function power(exponent: number): number {
  return exponent < -87.3 ? 0 : Math.exp(exponent);
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
  if (best < 0)
    throw new RwkvError("every logit is -Infinity: no token is allowed, or the model's weights are damaged");
  return best;
}

/**
 * Which tokens all cuts keep. Each cut keeps the tokens down to some rank, so it is enough to know the last token that
 * each keeps.
 *
 * @param weights probabilities up to a common factor, the largest of them 1
 */
function cutsOf(weights: Float32Array, { topP, topK, minP }: TokenChoice): (token: number) => boolean {
  const limited = topK > 0 && topK < weights.length;
  if (!limited && topP >= 1 && minP === 0) return () => true;
  const ranks = new WeightRanks(weights);
  let floor = minP;
  if (topP < 1) {
    let total = 0;
    for (let i = 0; i < weights.length; i++) total += weights[i] as number;
    const last = ranks.find((_, sum) => sum > topP * total);
    floor = Math.max(floor, last === undefined ? 0 : (weights[last] as number));
  }
  // Where fewer tokens have a probability at all, there is no last one.
  const lastOfK = limited ? ranks.find((count) => count >= topK) : undefined;
  const least = lastOfK === undefined ? 0 : (weights[lastOfK] as number);
  const lastTie = lastOfK ?? weights.length;
  return (token) => {
    const weight = weights[token] as number;
    return weight > 0 && weight >= floor && (weight > least || (weight === least && token <= lastTie));
  };
}

/**
 * The first index at which the sum of weights exceeds `target`; the last weight that is not 0 where rounding keeps the
 * sum below it.
 */
function sampleIndex(weights: Float32Array, target: number): number {
  let remaining = target;
  let last = 0;
  for (let i = 0; i < weights.length; i++) {
    const weight = weights[i] as number;
    if (weight === 0) continue;
    last = i;
    remaining -= weight;
    if (remaining < 0) break;
  }
  return last;
}
