// What /v1/messages answers: a message of Anthropic's API, and the events of a stream that builds it.

import * as v from "valibot";
import { type Described, wholeNumber } from "../schema.js";

const block = v.variant("type", [
  v.strictObject({ type: v.literal("thinking"), thinking: v.string(), signature: v.string() }),
  v.strictObject({ type: v.literal("text"), text: v.string(), citations: v.null() }),
  v.strictObject({ type: v.literal("tool_use"), id: v.string(), name: v.string(), input: v.unknown() }),
]);

/** The next part of a block's content. */
const delta = v.variant("type", [
  v.strictObject({ type: v.literal("thinking_delta"), thinking: v.string() }),
  v.strictObject({ type: v.literal("text_delta"), text: v.string() }),
  v.strictObject({ type: v.literal("input_json_delta"), partial_json: v.string() }),
]);

const usage = v.strictObject({
  input_tokens: wholeNumber(0),
  cache_creation_input_tokens: wholeNumber(0),
  cache_read_input_tokens: wholeNumber(0),
  output_tokens: wholeNumber(0),
  output_tokens_details: v.strictObject({ thinking_tokens: wholeNumber(0) }),
});

const end = {
  stop_reason: v.nullable(v.picklist(["end_turn", "max_tokens", "tool_use", "stop_sequence"])),
  stop_sequence: v.nullable(v.string()),
};

export const message = v.strictObject({
  id: v.string(),
  type: v.literal("message"),
  role: v.literal("assistant"),
  model: v.string(),
  content: v.array(block),
  ...end,
  usage,
});

/** What happens to blocks with a piece of an answer. */
const blockEvents = [
  v.strictObject({ type: v.literal("content_block_start"), index: wholeNumber(0), content_block: block }),
  v.strictObject({ type: v.literal("content_block_delta"), index: wholeNumber(0), delta }),
  v.strictObject({ type: v.literal("content_block_stop"), index: wholeNumber(0) }),
] as const;
const blockEvent = v.variant("type", blockEvents);

export const messageError = v.strictObject({
  type: v.literal("error"),
  error: v.strictObject({ type: v.string(), message: v.string() }),
  request_id: v.exactOptional(v.string()),
});

export const messageEvent = v.variant("type", [
  v.strictObject({ type: v.literal("message_start"), message }),
  v.strictObject({ type: v.literal("ping") }),
  ...blockEvents,
  v.strictObject({ type: v.literal("message_delta"), delta: v.strictObject({ ...end, container: v.null() }), usage }),
  v.strictObject({ type: v.literal("message_stop") }),
  messageError,
]);

export const tokenCount = v.strictObject({ input_tokens: wholeNumber(0) });

export type Message = Described<typeof message>;
/** A block while it is built. */
export type MessageBlock = v.InferOutput<typeof block>;
export type BlockDelta = Described<typeof delta>;
export type BlockEvent = Described<typeof blockEvent>;
export type MessageEvent = Described<typeof messageEvent>;
export type MessageError = Described<typeof messageError>;
