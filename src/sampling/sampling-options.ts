// The sampling options, with their defaults and ranges.

import { OptionError } from "../errors.js";
import { freshSeed } from "./random.js";

/**
 * How the next token is sampled. Cuts are made on the probabilities at temperature 1; docs/sampling.md defines them.
 */
export interface SamplingOptions {
  /**
   * Flattens (> 1) or sharpens (< 1) the probabilities that remain after the cuts, p^(1/temperature); 0 takes the
   * most probable token. Default 1.
   */
  temperature?: number;
  /**
   * Sums probabilities from the most probable token down to the first at which the sum exceeds this, and keeps every
   * token that is at least as probable as that one. 1 keeps all. Default 0.85.
   */
  topP?: number;
  /** Keeps the k most probable tokens. 0 keeps all. Default 0. */
  topK?: number;
  /** Keeps tokens that are at least this many times as probable as the most probable one. 0 keeps all. Default 0. */
  minP?: number;
  /** The amount subtracted from the logit of every token that was generated before. Default 0. */
  presencePenalty?: number;
  /** The amount subtracted from a token's logit for each time it was generated before; counts decay. Default 0. */
  frequencyPenalty?: number;
  /** The factor by which every count is multiplied at each token, from 0 to 1. Default 0.996, as in ChatRWKV. */
  penaltyDecay?: number;
  /** Amounts that are added to logits, by token id. */
  logitBias?: Readonly<Record<number, number>>;
  /** Ids of tokens that are never sampled. */
  bannedTokens?: readonly number[];
  /**
   * The seed of the random generator, a whole number from 0 to 2^53 - 1. The same seed samples the same tokens.
   * Random by default.
   */
  seed?: number;
}

/** All options with their values. */
export type ResolvedSamplingOptions = Required<SamplingOptions>;

/**
 * Fills in defaults, checks ranges, and copies the options.
 *
 * @param vocabulary the number that token ids must be below
 * @throws OptionError for an option outside its range
 */
export function resolveSamplingOptions(options: SamplingOptions, vocabulary: number): ResolvedSamplingOptions {
  const { logitBias, bannedTokens } = options;
  const isTable = typeof logitBias === "object" && logitBias !== null && !(logitBias instanceof Map);
  if (logitBias !== undefined && !isTable) {
    throw new OptionError("logitBias", logitBias, "an object that maps token ids to amounts");
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
    throw new OptionError("bannedTokens", resolved.bannedTokens, "fewer tokens than the whole vocabulary");
  }
  return resolved;
}
