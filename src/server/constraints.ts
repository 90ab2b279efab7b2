// What a request says of the form of its answer: JSON, a schema, a grammar, a regular expression, a choice.

import * as v from "valibot";
import type { Constraint } from "../generation/generation-options.js";
import { notSupported } from "./errors.js";
import { optional, text } from "./schema.js";

/** Fields of a schema, to be spread into that of a body. */
export const constraintFields = {
  response_format: optional(
    v.variant("type", [
      v.object({ type: v.literal("text") }),
      v.object({ type: v.literal("json_object") }),
      v.object({
        type: v.literal("json_schema"),
        json_schema: v.object({
          name: optional(v.string()),
          schema: v.record(v.string(), v.unknown()),
          strict: optional(v.boolean()),
        }),
      }),
    ]),
  ),
  grammar: optional(text()),
  regex: optional(text()),
  choice: optional(v.array(text())),
};

const constraintSchema = v.object(constraintFields);
export type ConstraintRequest = v.InferOutput<typeof constraintSchema>;

/**
 * The constraint that a request asks for.
 *
 * @throws ApiError: no form can be asked for yet
 */
export function requestedConstraint(request: ConstraintRequest): Constraint | undefined {
  const { response_format: format, grammar, regex, choice } = request;
  if (format && format.type !== "text") throw notSupported("response_format", `type ${format.type} is not supported`);
  for (const [field, value] of Object.entries({ grammar, regex, choice })) {
    if (value !== undefined) throw notSupported(field, "is not supported");
  }
  return undefined;
}
