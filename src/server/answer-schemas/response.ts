// What /v1/responses answers: a response, the events of a stream that tells of it, and the items that it answered.

import * as v from "valibot";
import { effort } from "../chat-messages.js";
import { errorBody } from "../errors.js";
import { contentPart, textFormat, tool, toolChoice } from "../response-input.js";
import { type Described, retold, wholeNumber } from "../schema.js";
import { tokenLogprob } from "../token-text.js";

const nothing = v.pipe(v.array(v.unknown()), v.maxLength(0));

const outputText = v.strictObject({
  type: v.literal("output_text"),
  text: v.string(),
  annotations: nothing,
  logprobs: v.array(tokenLogprob),
});
const reasoningText = v.strictObject({ type: v.literal("reasoning_text"), text: v.string() });
const part = v.variant("type", [outputText, reasoningText]);
const itemStatus = v.picklist(["in_progress", "completed", "incomplete"]);
const itemHead = { id: v.string(), status: itemStatus };

const item = v.variant("type", [
  v.strictObject({
    ...itemHead,
    type: v.literal("message"),
    role: v.literal("assistant"),
    content: v.array(outputText),
  }),
  v.strictObject({ ...itemHead, type: v.literal("reasoning"), summary: nothing, content: v.array(reasoningText) }),
  v.strictObject({
    ...itemHead,
    type: v.literal("function_call"),
    call_id: v.string(),
    name: v.string(),
    arguments: v.string(),
  }),
]);

const usage = v.strictObject({
  input_tokens: wholeNumber(0),
  input_tokens_details: v.strictObject({ cached_tokens: wholeNumber(0) }),
  output_tokens: wholeNumber(0),
  output_tokens_details: v.strictObject({ reasoning_tokens: wholeNumber(0) }),
  total_tokens: wholeNumber(0),
});

const [plainText, anyJson, jsonOfSchema] = textFormat.options;
const [wayOfChoice, namedChoice] = toolChoice.options;
const [textPart, refusal] = contentPart.options;
/** OpenAI's clients expect these two of every tool. */
const toldTool = v.strictObject({
  ...tool.entries,
  parameters: v.nullable(v.record(v.string(), v.unknown())),
  strict: v.boolean(),
});
const retoldPart = v.variant("type", [retold(textPart), retold(refusal)]);

/** What is known of a response before it is written; much of it is the request told again. */
const head = {
  id: v.string(),
  object: v.literal("response"),
  created_at: wholeNumber(0),
  background: v.literal(false),
  error: v.null(),
  instructions: v.nullable(v.string()),
  max_output_tokens: v.nullable(wholeNumber(1)),
  metadata: v.record(v.string(), v.string()),
  model: v.string(),
  parallel_tool_calls: v.boolean(),
  previous_response_id: v.nullable(v.string()),
  reasoning: v.strictObject({ effort: v.nullable(effort), summary: v.null() }),
  store: v.boolean(),
  temperature: v.nullable(v.number()),
  text: v.strictObject({ format: v.variant("type", [retold(plainText), retold(anyJson), retold(jsonOfSchema)]) }),
  tool_choice: v.union([wayOfChoice, retold(namedChoice)]),
  tools: v.array(toldTool),
  top_logprobs: wholeNumber(0, 20),
  top_p: v.nullable(v.number()),
  truncation: v.literal("disabled"),
  user: v.nullable(v.string()),
};
const responseHead = v.strictObject(head);

export const response = v.strictObject({
  ...head,
  status: itemStatus,
  output: v.array(item),
  completed_at: v.exactOptional(wholeNumber(0)),
  incomplete_details: v.nullable(v.strictObject({ reason: v.literal("max_output_tokens") })),
  usage: v.nullable(usage),
});

/** An event with its fields. */
const event = <Type extends string, Fields extends v.ObjectEntries>(type: Type, fields: Fields) =>
  v.strictObject({ type: v.literal(type), sequence_number: wholeNumber(0), ...fields });
const itemPlace = { item_id: v.string(), output_index: wholeNumber(0) };
const place = { ...itemPlace, content_index: wholeNumber(0) };

export const responseEvent = v.variant("type", [
  event("response.created", { response }),
  event("response.in_progress", { response }),
  event("response.completed", { response }),
  event("response.incomplete", { response }),
  event("response.output_item.added", { output_index: wholeNumber(0), item }),
  event("response.output_item.done", { output_index: wholeNumber(0), item }),
  event("response.content_part.added", { ...place, part }),
  event("response.content_part.done", { ...place, part }),
  event("response.output_text.delta", { ...place, delta: v.string(), logprobs: v.array(tokenLogprob) }),
  event("response.output_text.done", { ...place, text: v.string(), logprobs: v.array(tokenLogprob) }),
  event("response.reasoning_text.delta", { ...place, delta: v.string() }),
  event("response.reasoning_text.done", { ...place, text: v.string() }),
  event("response.function_call_arguments.delta", { ...itemPlace, delta: v.string() }),
  event("response.function_call_arguments.done", { ...itemPlace, name: v.string(), arguments: v.string() }),
  event("error", { ...v.omit(errorBody.entries.error, ["type"]).entries }),
]);

/** The items of a request, as they are told again. */
const inputItem = v.variant("type", [
  v.strictObject({
    id: v.string(),
    type: v.literal("message"),
    role: v.picklist(["user", "assistant", "system", "developer"]),
    status: v.literal("completed"),
    content: v.array(retoldPart),
  }),
  v.strictObject({ id: v.string(), type: v.literal("reasoning"), summary: nothing }),
  v.strictObject({
    id: v.string(),
    type: v.literal("function_call"),
    status: v.literal("completed"),
    call_id: v.optional(v.string()),
    name: v.string(),
    arguments: v.string(),
  }),
  v.strictObject({
    id: v.string(),
    type: v.literal("function_call_output"),
    status: v.literal("completed"),
    call_id: v.optional(v.string()),
    output: v.union([v.string(), v.array(retoldPart)]),
  }),
]);

export const inputItemList = v.strictObject({
  object: v.literal("list"),
  data: v.array(inputItem),
  first_id: v.nullable(v.string()),
  last_id: v.nullable(v.string()),
  has_more: v.boolean(),
});

export const deletedResponse = v.strictObject({
  id: v.string(),
  object: v.literal("response"),
  deleted: v.literal(true),
});

/** What is known of a response before it is written. */
export type ResponseHead = Described<typeof responseHead>;
export type ResponseObject = Described<typeof response>;
export type ResponseStatus = v.InferOutput<typeof itemStatus>;
/** An item of a response's output. */
export type OutputItem = Described<typeof item>;
/** A part of an item's content. */
export type OutputPart = Described<typeof part>;
export type OutputText = Described<typeof outputText>;
export type ReasoningText = Described<typeof reasoningText>;
/** An event of a stream. */
export type ResponseEvent = Described<typeof responseEvent>;
export type InputItem = Described<typeof inputItem>;
