// The most tokens that a request may ask for.

import { invalidField } from "./errors.js";

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
