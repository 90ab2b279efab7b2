// Token ids that callers give: checked and copied when a call is made, so that nothing that happens to their array later matters.

import { OptionError } from "../errors.js";

/** As many as an array can hold; a text of 4 GiB. */
const mostTokens = 2 ** 30;

/**
 * Copies token ids.
 *
 * @param option what the error calls them
 * @throws OptionError where one is not an id of the vocabulary
 */
export function copyTokens(tokens: ArrayLike<number>, vocabulary: number, option: string = "tokens"): Int32Array {
  const expected = `token ids from 0 to ${vocabulary - 1}`;
  if (typeof tokens !== "object" || tokens === null || !Number.isSafeInteger(tokens.length) || tokens.length < 0) {
    throw new OptionError(option, tokens, `an array of ${expected}`);
  }
  if (tokens.length > mostTokens) throw new OptionError(option, tokens, `at most ${mostTokens} tokens`);
  const copy = new Int32Array(tokens.length);
  for (let i = 0; i < copy.length; i++) {
    const token = tokens[i] as number;
    if (!Number.isInteger(token) || token < 0 || token >= vocabulary) throw new OptionError(option, token, expected);
    copy[i] = token;
  }
  return copy;
}
