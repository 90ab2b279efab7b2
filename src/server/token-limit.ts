// Checks of tokens that requests name: ids, and how many they ask for.

import type { Model } from "../generation/model.js";
import { invalidField } from "./errors.js";

/**
 * Token ids that a request gives.
 *
 * @throws ApiError for one that the model does not have
 */
export function checkedTokens(param: string, tokens: readonly number[], { info }: Model): readonly number[] {
  const { vocabulary } = info;
  const wrong = tokens.find((id) => id >= vocabulary);
  if (wrong !== undefined) throw invalidField(param, `expected token ids below ${vocabulary}, found ${wrong}`);
  return tokens;
}

/**
 * The number that a request gives.
 *
 * @throws ApiError for one over the server's limit
 */
export function checkMaxTokens(param: string, wanted: number | undefined, limit: number): number | undefined {
  if (wanted !== undefined && wanted > limit)
    throw invalidField(param, `expected at most ${limit} tokens, the limit of this server, found ${wanted}`);
  return wanted;
}
