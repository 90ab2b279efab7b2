// The choice of a token from logits, in its plain form: adjustments, cuts by probability, temperature, and a draw. The cuts and
// their order are those of the original RWKV sampler (https://github.com/BlinkDL/RWKV-LM, sample_logits). The kernel backends
// do the same in kernels/choose.c.

import { RwkvError } from "../errors.js";
import { WeightRanks } from "./weight-ranks.js";

/** How one token is to be chosen. */
export interface TokenChoice {
  readonly temperature: number;
  readonly topP: number;
  readonly topK: number;
  readonly minP: number;
  /** The random number that the draw takes, from 0 up to 1. */
  readonly uniform: number;
  /** What is added to the logits of some tokens; -Infinity bans them. */
  readonly adjustments: TokenAdjustments;
  /** A bit for each token, lowest first: those that may be chosen. All may when it is absent. */
  readonly mask?: Uint32Array;
}

/** Amounts by token; each token stands there once. */
export interface TokenAdjustments {
  readonly tokens: readonly number[];
  readonly amounts: readonly number[];
}

/** Whether a mask has the bit of a token. */
export function isAllowed(mask: Uint32Array, token: number): boolean {
  return (((mask[token >>> 5] ?? 0) >>> (token & 31)) & 1) === 1;
}

/**
 * Chooses a token.
 *
 * @param logits of the whole vocabulary; left as they are
 * @throws RwkvError when a logit is NaN or infinite, or none is a number
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
  // The power 1 / temperature of a probability, up to a factor that all have in common.
  const weights = kept.map((token) => Math.fround(Math.exp(((adjusted[token] as number) - max) / choice.temperature)));
  return kept[draw(weights, choice.uniform)] as number;
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
 * The tokens that all cuts keep, by id. Each cut keeps the tokens down to some rank, so it is enough to know the last that each
 * keeps.
 *
 * @param weights probabilities times a constant, the largest 1
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

/** The index at which the sum of weights passes its share `uniform`; the last one that is not 0 where rounding keeps it below. */
function draw(weights: readonly number[], uniform: number): number {
  let left = uniform * weights.reduce((sum, weight) => sum + weight, 0);
  let last = 0;
  for (const [i, weight] of weights.entries()) {
    if (weight === 0) continue;
    last = i;
    left -= weight;
    if (left < 0) break;
  }
  return last;
}
