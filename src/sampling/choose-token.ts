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
  readonly mask?: Uint32Array;
}

/** Amounts by token. Each token occurs at most once. */
export interface TokenAdjustments {
  readonly tokens: readonly number[];
  readonly amounts: readonly number[];
}

/** Whether a mask allows a token. */
function isAllowed(mask: Uint32Array, token: number): boolean {
  return (((mask[token >>> 5] ?? 0) >>> (token & 31)) & 1) === 1;
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
  const { mask } = choice;
  if (mask) {
    for (let token = 0; token < adjusted.length; token++) {
      if (!isAllowed(mask, token)) adjusted[token] = Number.NEGATIVE_INFINITY;
    }
  }
  const best = largest(adjusted);
  if (choice.temperature === 0) return best;
  const max = adjusted[best] as number;
  const kept = keptTokens(
    adjusted.map((logit) => Math.exp(logit - max)),
    choice,
  );
  // Probabilities to the power 1 / temperature, up to a common factor.
  const weights = kept.map((token) => Math.fround(Math.exp(((adjusted[token] as number) - max) / choice.temperature)));
  return kept[sampleIndex(weights, choice.uniform)] as number;
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
 * The tokens that all cuts keep, in the order of their ids. Each cut keeps the tokens down to some rank, so it is
 * enough to know the last token that each keeps.
 *
 * @param weights probabilities up to a common factor, the largest of them 1
 */
function keptTokens(weights: Float32Array, { topP, topK, minP }: TokenChoice): number[] {
  const limited = topK > 0 && topK < weights.length;
  const ranks = new WeightRanks(weights);
  let floor = minP;
  if (topP < 1) {
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const last = ranks.find((_, sum) => sum > topP * total);
    floor = Math.max(floor, last === undefined ? 0 : (weights[last] as number));
  }
  const lastOfK = limited ? (ranks.find((count) => count >= topK) as number) : -1;
  const least = weights[lastOfK] ?? 0;
  const kept: number[] = [];
  weights.forEach((weight, i) => {
    if (weight < floor) return;
    if (limited && (weight < least || (weight === least && i > lastOfK))) return;
    kept.push(i);
  });
  return kept;
}

/**
 * The first index at which the sum of weights exceeds the fraction `uniform` of their total; the last weight that is
 * not 0 where rounding keeps the sum below it.
 */
function sampleIndex(weights: readonly number[], uniform: number): number {
  let remaining = uniform * weights.reduce((sum, weight) => sum + weight, 0);
  let last = 0;
  for (const [i, weight] of weights.entries()) {
    if (weight === 0) continue;
    last = i;
    remaining -= weight;
    if (remaining < 0) break;
  }
  return last;
}
