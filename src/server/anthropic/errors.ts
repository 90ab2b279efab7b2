// Errors as clients of Anthropic's API expect them.

import { type MessageError, messageError } from "../answer-schemas/message.js";
import type { ApiError } from "../errors.js";
import type { ErrorForm } from "../route.js";

const types: Readonly<Record<number, string>> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  413: "request_too_large",
  429: "rate_limit_error",
  503: "overloaded_error",
};

/** Fields in the words of OpenAI's API, which the rest of the server knows, and in Anthropic's. */
const fields: readonly (readonly [RegExp, string])[] = [
  [/^(tools\[\d+\])\.function\.parameters/, "$1.input_schema"],
  [/^(tools\[\d+\]|tool_choice)\.function\.name/, "$1.name"],
  [/^response_format\.json_schema\.schema/, "output_config.format.schema"],
];

/** The body of an answer that is an error. The name of the field that is wrong is part of the message. */
export function errorBody({ status, message }: ApiError, requestId?: string): MessageError {
  const type = types[status] ?? (status >= 500 ? "api_error" : "invalid_request_error");
  const told = fields.reduce((text, [openai, own]) => text.replace(openai, own), message);
  return { type: "error", error: { type, message: told }, ...(requestId !== undefined && { request_id: requestId }) };
}

/** How routes of Anthropic's API tell errors. */
export const messageErrors: ErrorForm = { schema: messageError, bodyOf: errorBody };
