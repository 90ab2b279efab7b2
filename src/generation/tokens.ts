// Checks and copies the token ids that callers pass when a call is made, so that later changes to their array do not
// matter.

import { OptionError } from "../errors.js";

/** The most tokens of one call. */
const maxTokens = 2 ** 30;

/**
 * Copies token ids.
 *
 * @param option the name of the argument, for errors
 * @throws OptionError when a value is not an id of the vocabulary
 */
export function copyTokens(tokens: ArrayLike<number>, vocabulary: number, option: string = "tokens"): Int32Array {
  const expected = `token ids from 0 to ${vocabulary - 1}`;
  if (typeof tokens !== "object" || tokens === null || !Number.isSafeInteger(tokens.length) || tokens.length < 0) {
    throw new OptionError(option, tokens, `an array of ${expected}`);
  }
  if (tokens.length > maxTokens) throw new OptionError(option, tokens, `at most ${maxTokens} tokens`);
  const copy = new Int32Array(tokens.length);
  for (let i = 0; i < copy.length; i++) {
    const token = tokens[i] as number;
    if (!Number.isInteger(token) || token < 0 || token >= vocabulary) throw new OptionError(option, token, expected);
    copy[i] = token;
  }
  return copy;
}
