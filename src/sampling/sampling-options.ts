// The options of sampling, their defaults and ranges.

import { OptionError } from "../errors.js";
import { freshSeed } from "./random.js";

/** How the next token is chosen. Cuts are made on the probabilities at temperature 1; see docs/sampling.md. */
export interface SamplingOptions {
  /** Flattens (> 1) or sharpens (< 1) the probabilities that the cuts left: p^(1/temperature). 0 is greedy. Default 1. */
  temperature?: number;
  /**
   * Keeps every token at least as probable as the first at which the cumulative sum, most probable first, exceeds this.
   * 1 keeps all. Default 0.85.
   */
  topP?: number;
  /** Keeps the k most probable tokens. 0 keeps all. Default 0. */
  topK?: number;
  /** Keeps tokens at least this many times as probable as the most probable. 0 keeps all. Default 0. */
  minP?: number;
  /** Subtracted from the logit of every token that was generated before. Default 0. */
  presencePenalty?: number;
  /** Subtracted from a token's logit times its count, which decays. Default 0. */
  frequencyPenalty?: number;
  /** What each count is multiplied by at every step, from 0 to 1. Default 0.996, as in ChatRWKV. */
  penaltyDecay?: number;
  /** Added to logits, by token id. */
  logitBias?: Readonly<Record<number, number>>;
  /** Ids that are never chosen. */
  bannedTokens?: readonly number[];
  /** Of the random generator: the same seed chooses the same tokens. A whole number from 0 to 2^53 - 1; random by default. */
  seed?: number;
}

/** All options with their values. */
export type ResolvedSamplingOptions = Required<SamplingOptions>;

/**
 * Fills in defaults, checks ranges, and copies.
 *
 * @param vocabulary what token ids have to be below
 * @throws OptionError
 */
export function resolveSamplingOptions(options: SamplingOptions, vocabulary: number): ResolvedSamplingOptions {
  const { logitBias, bannedTokens } = options;
  const isTable = typeof logitBias === "object" && logitBias !== null && !(logitBias instanceof Map);
  if (logitBias !== undefined && !isTable) {
    throw new OptionError("logitBias", logitBias, "an object with amounts by token id");
  }
  if (bannedTokens !== undefined && !(Array.isArray(bannedTokens) || ArrayBuffer.isView(bannedTokens))) {
    throw new OptionError("bannedTokens", bannedTokens, "an array of token ids");
  }
  const number = (name: keyof SamplingOptions, fallback: number, low: number, high: number) => {
    const value = options[name] ?? fallback;
    if (typeof value !== "number" || !(value >= low && value <= high)) {
      throw new OptionError(
        name,
        value,
        high === Number.POSITIVE_INFINITY ? `a number >= ${low}` : `a number from ${low} to ${high}`,
      );
    }
    return value;
  };
  const resolved = {
    temperature: number("temperature", 1, 0, 100),
    topP: number("topP", 0.85, 0, 1),
    topK: number("topK", 0, 0, Number.POSITIVE_INFINITY),
    minP: number("minP", 0, 0, 1),
    presencePenalty: number("presencePenalty", 0, -100, 100),
    frequencyPenalty: number("frequencyPenalty", 0, -100, 100),
    penaltyDecay: number("penaltyDecay", 0.996, 0, 1),
    logitBias: { ...options.logitBias },
    bannedTokens: [...(options.bannedTokens ?? [])],
    seed: options.seed ?? freshSeed(),
  };
  if (!Number.isInteger(resolved.topK)) throw new OptionError("topK", resolved.topK, "a whole number >= 0");
  if (!(Number.isSafeInteger(resolved.seed) && resolved.seed >= 0)) {
    throw new OptionError("seed", resolved.seed, "a whole number from 0 to 2^53 - 1");
  }
  const checkTokenId = (name: string, id: number) => {
    if (!Number.isInteger(id) || id < 0 || id >= vocabulary)
      throw new OptionError(name, id, `token ids from 0 to ${vocabulary - 1}`);
  };
  for (const [id, bias] of Object.entries(resolved.logitBias)) {
    checkTokenId("logitBias", id.trim() === "" ? Number.NaN : Number(id));
    if (!Number.isFinite(bias)) throw new OptionError("logitBias", bias, "finite numbers");
  }
  for (const id of resolved.bannedTokens) checkTokenId("bannedTokens", id);
  if (new Set(resolved.bannedTokens).size >= vocabulary) {
    throw new OptionError("bannedTokens", resolved.bannedTokens, "at least one token to be left");
  }
  return resolved;
}
