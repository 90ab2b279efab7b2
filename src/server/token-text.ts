// Tokens as clients are told of them: their text, and their bytes, since a token may be a part of a character.

import type { GenerationStep } from "../generation/generation.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";

/** A token of OpenAI's log-probabilities. */
export interface TokenText {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[] | null;
}

/** A token with the most probable ones in its place. */
export interface TokenLogprob extends TokenText {
  readonly top_logprobs: readonly TokenText[];
}

/** The least log-probability that JSON can say: it has no infinities. */
const leastLogprob = -9999;

export function tokenText(tokenizer: Tokenizer, id: number, logProbability: number): TokenText {
  const bytes = tokenizer.bytesOf?.(id);
  return {
    token: tokenizer.decode([id]),
    logprob: Math.max(leastLogprob, logProbability),
    bytes: bytes ? [...bytes] : null,
  };
}

/** The log-probabilities of a step's token. */
export function stepLogprob(
  tokenizer: Tokenizer,
  { token, logProbability, topLogProbabilities = [] }: GenerationStep,
): TokenLogprob | undefined {
  if (token === undefined || logProbability === undefined) return undefined;
  return {
    ...tokenText(tokenizer, token, logProbability),
    top_logprobs: topLogProbabilities.map((one) => tokenText(tokenizer, one.token, one.logProbability)),
  };
}
