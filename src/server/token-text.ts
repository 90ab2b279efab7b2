// Tokens as clients are told of them: their text, and their bytes, since a token may be a part of a character.

import * as v from "valibot";
import type { GenerationStep } from "../generation/generation.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { type Described, wholeNumber } from "./schema.js";

const tokenFields = {
  token: v.string(),
  logprob: v.number(),
  bytes: v.nullable(v.array(wholeNumber(0, 255))),
};
const tokenOfLogprobs = v.strictObject(tokenFields);

/** The schema of a token with the most probable ones in its place. */
export const tokenLogprob = v.strictObject({ ...tokenFields, top_logprobs: v.array(tokenOfLogprobs) });

/** A token of OpenAI's log-probabilities. */
export type TokenText = Described<typeof tokenOfLogprobs>;
/** A token with the most probable ones in its place. */
export type TokenLogprob = Described<typeof tokenLogprob>;

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

/** A token as a name of its own: the bytes of one that is no whole characters, as OpenAI's completions write them. */
export function tokenName({ token, bytes }: Pick<TokenText, "token" | "bytes">): string {
  if (!bytes || !token.includes("\ufffd") || Buffer.from(token).equals(Uint8Array.from(bytes))) return token;
  return `bytes:${bytes.map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`;
}

/** Where each of some tokens begins in their text: what only goes on with a character, where that begins. */
export function tokenOffsets(tokenizer: Tokenizer, tokens: Int32Array): number[] {
  const text = tokenizer.stream();
  let length = 0;
  return Array.from(tokens, (token) => {
    const at = length;
    length += text.push(token).length;
    return at;
  });
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
