// The field `state` of requests: the id of a state that the prompt begins with.

import type { PromptStart } from "./prompts.js";
import { optional, text } from "./schema.js";
import type { Services } from "./services.js";

/** The field, to be spread into the schema of a body. */
export const stateField = { state: optional(text()) };

/**
 * The state that a request names.
 *
 * @param owner what stands for the request's key, whose states they are
 * @throws ApiError where the owner has none of this id
 */
export async function startOf(
  { states }: Services,
  owner: string,
  id: string | undefined,
): Promise<PromptStart | undefined> {
  if (id === undefined) return undefined;
  const { head, snapshot } = await states.open(owner, id, "state");
  return { root: head.root, snapshot };
}
