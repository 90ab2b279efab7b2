// What requests of /v1/responses are made of: fields, items, and the conversation that they are.

import * as v from "valibot";
import type { AnswerRequest } from "./chat-answers.js";
import { type Conversation, effort, maxTools, toolName } from "./chat-messages.js";
import { type ConstraintRequest, ownConstraintFields } from "./constraints.js";
import { ApiError, notSupported } from "./errors.js";
import { samplingFields } from "./sampling-fields.js";
import { optional, text, wholeNumber } from "./schema.js";
import { stateField } from "./starting-state.js";

/** A part of what a message says. */
export const contentPart = v.variant("type", [
  v.object({ type: v.picklist(["input_text", "output_text", "text"]), text: v.string() }),
  v.object({ type: v.literal("refusal"), refusal: v.string() }),
]);
const content = v.union([v.string(), v.array(contentPart)]);
const messageItem = v.object({
  type: optional(v.literal("message")),
  role: v.picklist(["user", "assistant", "system", "developer"]),
  content,
});
const otherItem = v.variant("type", [
  v.object({ type: v.literal("reasoning") }),
  v.object({
    type: v.literal("function_call"),
    call_id: optional(v.string()),
    name: text(),
    arguments: v.string(),
  }),
  v.object({
    type: v.literal("function_call_output"),
    call_id: optional(v.string()),
    output: content,
  }),
]);
const item = v.union([messageItem, otherItem]);
type Item = v.InferOutput<typeof item>;

/** The form of a text. */
export const textFormat = v.variant("type", [
  v.object({ type: v.literal("text") }),
  v.object({ type: v.literal("json_object") }),
  v.object({
    type: v.literal("json_schema"),
    name: optional(v.string()),
    schema: v.record(v.string(), v.unknown()),
    strict: optional(v.boolean()),
  }),
]);

export const tool = v.object({
  type: v.literal("function"),
  name: toolName,
  description: optional(v.string()),
  parameters: optional(v.record(v.string(), v.unknown())),
  strict: optional(v.boolean()),
});

/** Which of the tools are called. */
export const toolChoice = v.union([
  v.picklist(["none", "auto", "required"]),
  v.object({ type: v.literal("function"), name: text() }),
]);

const { n: _, ...samplingOfOne } = samplingFields;

/** The schema of a request. */
export const responseBody = v.object({
  model: optional(v.string()),
  input: v.union([text(), v.pipe(v.array(item), v.minLength(1))]),
  instructions: optional(v.string()),
  previous_response_id: optional(text()),
  ...stateField,
  ...samplingOfOne,
  ...ownConstraintFields,
  max_output_tokens: optional(wholeNumber(1)),
  top_logprobs: optional(wholeNumber(0, 20)),
  include: optional(v.array(v.string())),
  text: optional(v.object({ format: optional(textFormat) })),
  reasoning: optional(v.object({ effort: optional(effort) })),
  tools: optional(v.pipe(v.array(tool), v.maxLength(maxTools))),
  tool_choice: optional(toolChoice),
  parallel_tool_calls: optional(v.boolean()),
  metadata: optional(
    v.pipe(v.record(v.pipe(v.string(), v.maxLength(64)), v.pipe(v.string(), v.maxLength(512))), v.maxEntries(16)),
  ),
  store: optional(v.boolean()),
  stream: optional(v.boolean()),
  background: optional(v.boolean()),
  conversation: optional(v.unknown()),
  prompt: optional(v.unknown()),
  truncation: optional(v.picklist(["auto", "disabled"])),
  user: optional(v.string()),
});
export type ResponseBody = v.InferOutput<typeof responseBody>;

/** @throws ApiError for what no response here can do */
export function checkSupported(body: ResponseBody): void {
  const { background, conversation, prompt, previous_response_id: previous, state } = body;
  if (background) throw notSupported("background", "is not supported: responses are written while they are waited for");
  // Left out, these would give an answer to something else than was asked.
  if (conversation !== undefined)
    throw notSupported("conversation", "is not supported: previous_response_id goes on with a conversation");
  if (prompt !== undefined) throw notSupported("prompt", "is not supported: this server keeps no prompts");
  if (previous !== undefined && state !== undefined) {
    throw notSupported("state", "is not supported beside previous_response_id: a response begins with one state");
  }
}

/** The whole request, as the rest of the server knows it. @throws ApiError for one without messages */
export function answerRequestOf(body: ResponseBody): AnswerRequest {
  const { tools, tool_choice: choice, ...sampling } = body;
  return {
    ...sampling,
    ...constraintOf(body),
    ...conversationOf(body),
    tools: tools?.map(({ name, description, parameters, strict }) => ({
      type: "function",
      function: { name, description, parameters, strict },
    })),
    tool_choice: typeof choice === "object" ? { type: "function", function: { name: choice.name } } : choice,
  };
}

/** The conversation that a request adds: its instructions, then its input. */
function conversationOf({ input, instructions, reasoning }: ResponseBody): Conversation {
  const messages = (typeof input === "string" ? [{ role: "user" as const, content: input }] : input).flatMap(
    messagesOf,
  );
  const told = instructions ? [{ role: "system" as const, content: instructions }] : [];
  const all = [...told, ...messages];
  if (all.length === 0) throw new ApiError(400, "input: expected a message", { param: "input", code: "invalid_value" });
  return { messages: all, reasoning_effort: reasoning?.effort };
}

function messagesOf(given: Item): Conversation["messages"] {
  if (!("type" in given) || given.type === undefined || given.type === "message") {
    return [{ role: given.role, content: textOf(given.content) }] as Conversation["messages"];
  }
  if (given.type === "function_call") {
    const { name, arguments: values, call_id: id } = given;
    const call = { id, type: "function" as const, function: { name, arguments: values } };
    return [{ role: "assistant", content: undefined, tool_calls: [call] }];
  }
  if (given.type === "function_call_output") {
    return [{ role: "tool", content: textOf(given.output), tool_call_id: given.call_id }];
  }
  return []; // a thought of an earlier answer
}

function textOf(given: v.InferOutput<typeof content>): string {
  if (typeof given === "string") return given;
  return given.map((one) => (one.type === "refusal" ? one.refusal : one.text)).join("");
}

/** What a request says of the form of its text, as chat completions say it. */
function constraintOf({ text: told }: ResponseBody): ConstraintRequest {
  const { format: wanted } = told ?? {};
  if (wanted?.type !== "json_schema") return { response_format: wanted };
  const { name, schema, strict } = wanted;
  return { response_format: { type: "json_schema", json_schema: { name, schema, strict } } };
}
