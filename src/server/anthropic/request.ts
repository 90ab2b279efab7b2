// Requests of Anthropic's Messages API, and the conversation that they stand for in OpenAI's words, which the rest of the server knows.

import * as v from "valibot";
import type { AnswerRequest } from "../chat-answers.js";
import { type Conversation, maxTools, toolName } from "../chat-messages.js";
import { ownConstraintFields } from "../constraints.js";
import { invalidField } from "../errors.js";
import { samplingFields } from "../sampling-fields.js";
import { number, optional, text, wholeNumber } from "../schema.js";
import { stateField } from "../starting-state.js";

const textBlock = v.object({ type: v.literal("text"), text: v.string() });
const textContent = v.union([v.string(), v.array(textBlock)]);
const toolUse = v.object({
  type: v.literal("tool_use"),
  id: v.string(),
  name: text(),
  input: v.record(v.string(), v.unknown()),
});
const toolResult = v.object({
  type: v.literal("tool_result"),
  tool_use_id: v.string(),
  content: optional(textContent),
  is_error: optional(v.boolean()),
});
/** Thoughts are no part of a conversation that is read again. */
const thought = v.object({ type: v.picklist(["thinking", "redacted_thinking"]) });
const block = v.variant("type", [textBlock, toolUse, toolResult, thought]);
type Block = v.InferOutput<typeof block>;

const message = v.object({
  role: v.picklist(["user", "assistant"]),
  content: v.union([v.string(), v.array(block)]),
});

const tool = v.object({
  type: optional(v.literal("custom")),
  name: toolName,
  description: optional(v.string()),
  input_schema: v.record(v.string(), v.unknown()),
  strict: optional(v.boolean()),
});

const parallel = { disable_parallel_tool_use: optional(v.boolean()) };
const effort = v.picklist(["low", "medium", "high", "xhigh", "max"]);

/** The fields of a conversation. */
const conversationFields = {
  model: optional(v.string()),
  ...stateField,
  messages: v.pipe(v.array(message), v.minLength(1)),
  system: optional(textContent),
  tools: optional(v.pipe(v.array(tool), v.maxLength(maxTools))),
  tool_choice: optional(
    v.variant("type", [
      v.object({ type: v.literal("auto"), ...parallel }),
      v.object({ type: v.literal("any"), ...parallel }),
      v.object({ type: v.literal("tool"), name: text(), ...parallel }),
      v.object({ type: v.literal("none") }),
    ]),
  ),
  thinking: optional(v.object({ type: v.picklist(["enabled", "disabled", "adaptive", "between_tools"]) })),
  output_config: optional(
    v.object({
      effort: optional(effort),
      format: optional(v.object({ type: v.literal("json_schema"), schema: v.record(v.string(), v.unknown()) })),
    }),
  ),
};

const { n: _n, stop: _stop, temperature: _temperature, ...otherSampling } = samplingFields;

export const countBody = v.object(conversationFields);
export const messagesBody = v.object({
  ...conversationFields,
  ...otherSampling,
  ...ownConstraintFields,
  temperature: optional(number(0, 1)),
  max_tokens: wholeNumber(1),
  stop_sequences: optional(v.pipe(v.array(text()), v.maxLength(32))),
  stream: optional(v.boolean()),
});

export type CountBody = v.InferOutput<typeof countBody>;
export type MessagesBody = v.InferOutput<typeof messagesBody>;

/** The conversation of a request. @throws ApiError for what the API does not allow */
export function conversationOf(body: CountBody): Conversation {
  const { messages, system, tools, tool_choice: choice, thinking, output_config: output } = body;
  if (messages.at(-1)?.role === "assistant") {
    throw invalidField(
      "messages",
      "expected a user's message as the last: this server does not continue an assistant's",
    );
  }
  const first: Conversation["messages"] = system === undefined ? [] : [{ role: "system", content: system }];
  const thinks = thinking !== undefined && thinking.type !== "disabled";
  return {
    messages: [...first, ...messages.flatMap(messagesOf)],
    tools: tools?.map(({ name, description, input_schema: parameters, strict }) => ({
      type: "function",
      function: { name, description, parameters, strict },
    })),
    tool_choice: choice && choiceOf(choice),
    parallel_tool_calls: choice && choice.type !== "none" && choice.disable_parallel_tool_use ? false : undefined,
    reasoning_effort: thinks ? (output?.effort ?? "medium") : "none",
  };
}

/** The whole request, as the rest of the server knows it. @throws ApiError for what the API does not allow */
export function answerRequestOf(body: MessagesBody): AnswerRequest {
  const { stop_sequences: stop, output_config: output, messages: _m, tools: _t, tool_choice: _c, ...sampling } = body;
  const format = output?.format;
  return {
    ...sampling,
    ...conversationOf(body),
    stop,
    response_format: format && { type: "json_schema", json_schema: { schema: format.schema, strict: true } },
  };
}

function choiceOf(choice: NonNullable<CountBody["tool_choice"]>): Conversation["tool_choice"] {
  if (choice.type === "tool") return { type: "function", function: { name: choice.name } };
  return choice.type === "any" ? "required" : choice.type;
}

/** A message, and before it what tools gave, which Anthropic's API has in the user's messages. */
function messagesOf({ role, content }: CountBody["messages"][number], index: number): Conversation["messages"] {
  if (typeof content === "string") return [{ role, content }];
  const said = content.flatMap((one) => (one.type === "text" ? [one] : []));
  const misplaced = role === "assistant" ? "tool_result" : "tool_use";
  const at = content.findIndex((one) => one.type === misplaced);
  if (at >= 0) throw invalidField(`messages[${index}].content[${at}].type`, `${misplaced} in a message of ${role}`);
  if (role === "assistant") return [{ role, content: said, tool_calls: content.flatMap(callOf) }];
  const results = content.flatMap(resultOf);
  return said.length > 0 || results.length === 0 ? [...results, { role, content: said }] : results;
}

function callOf(one: Block) {
  if (one.type !== "tool_use") return [];
  const { id, name, input } = one;
  return [{ id, type: "function" as const, function: { name, arguments: JSON.stringify(input) } }];
}

function resultOf(one: Block): Conversation["messages"] {
  if (one.type !== "tool_result") return [];
  const { content = "", is_error: isError, tool_use_id } = one;
  const given = typeof content === "string" ? content : content.map(({ text }) => text).join("");
  return [{ role: "tool", content: isError ? JSON.stringify({ error: given }) : given, tool_call_id: tool_use_id }];
}
