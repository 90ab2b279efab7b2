// Answers of Anthropic's Messages API: a message of blocks, whole or as the events that build it.

import type { BlockDelta, BlockEvent, Message, MessageBlock, MessageEvent } from "../answer-schemas/message.js";
import { newId } from "../answers.js";
import type { Answers } from "../chat-answers.js";
import type { ChatPiece } from "../chat-pieces.js";
import { toApiError } from "../errors.js";
import { errorBody } from "./errors.js";

const stopReasons = { stop: "end_turn", length: "max_tokens", tool_calls: "tool_use" } as const;

/** The message, once all of it is there. */
export async function wholeMessage(model: string, answers: Answers): Promise<Message> {
  const blocks = new Blocks();
  const content: MessageBlock[] = [];
  const inputs: string[] = [];
  let last: ChatPiece | undefined;
  for await (const piece of answers.pieces) {
    for (const event of blocks.of(piece)) {
      if (event.type === "content_block_start") content[event.index] = event.content_block;
      if (event.type === "content_block_delta") add(content[event.index] as MessageBlock, event, inputs);
    }
    last = piece;
  }
  content.forEach((block, i) => {
    if (block.type === "tool_use") block.input = inputOf(inputs[i] ?? "");
  });
  return { ...messageOf(model, answers), content, ...endOf(last) };
}

/** The events of the message. An error is the last of them. */
export async function* messageStream(model: string, answers: Answers): AsyncGenerator<MessageEvent, void, void> {
  try {
    yield* messageEvents(model, answers);
  } catch (error) {
    yield errorBody(toApiError(error));
  }
}

async function* messageEvents(model: string, answers: Answers): AsyncGenerator<MessageEvent, void, void> {
  yield { type: "message_start", message: messageOf(model, answers) };
  yield { type: "ping" };
  const blocks = new Blocks();
  let last: ChatPiece | undefined;
  for await (const piece of answers.pieces) {
    yield* blocks.of(piece);
    last = piece;
  }
  yield* blocks.end();
  yield { type: "message_delta", delta: { ...endOf(last), container: null }, usage: usageOf(answers) };
  yield { type: "message_stop" };
}

/** Divides an answer into blocks. */
class Blocks {
  #index = -1;
  #open: MessageBlock["type"] | undefined;

  *of({ thought, text, calls }: ChatPiece): Generator<BlockEvent, void, void> {
    if (thought !== "") {
      yield* this.#in({ type: "thinking", thinking: "", signature: "" });
      yield this.#delta({ type: "thinking_delta", thinking: thought });
    }
    if (text !== "") {
      yield* this.#in({ type: "text", text: "", citations: null });
      yield this.#delta({ type: "text_delta", text });
    }
    for (const { name, arguments: values, isLast } of calls) {
      if (name !== undefined) {
        yield* this.end();
        yield* this.#in({ type: "tool_use", id: newId("toolu"), name, input: {} });
      }
      if (values !== "") yield this.#delta({ type: "input_json_delta", partial_json: values });
      if (isLast) yield* this.end();
    }
  }

  /** Ends the block that is open. */
  *end(): Generator<BlockEvent, void, void> {
    if (this.#open) yield { type: "content_block_stop", index: this.#index };
    this.#open = undefined;
  }

  /** Sees to it that a block of this type is open. */
  *#in(block: MessageBlock): Generator<BlockEvent, void, void> {
    if (this.#open === block.type) return;
    yield* this.end();
    this.#open = block.type;
    this.#index++;
    yield { type: "content_block_start", index: this.#index, content_block: block };
  }

  #delta(delta: BlockDelta): BlockEvent {
    return { type: "content_block_delta", index: this.#index, delta };
  }
}

function add(
  block: MessageBlock,
  { index, delta }: BlockEvent & { readonly type: "content_block_delta" },
  inputs: string[],
): void {
  if (block.type === "thinking" && delta.type === "thinking_delta") block.thinking += delta.thinking;
  if (block.type === "text" && delta.type === "text_delta") block.text += delta.text;
  if (delta.type === "input_json_delta") inputs[index] = (inputs[index] ?? "") + delta.partial_json;
}

/** The input of a call. One that was cut off at the answer's length is no JSON. */
function inputOf(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return {};
  }
}

function messageOf(model: string, answers: Answers): Message {
  return {
    id: newId("msg"),
    type: "message",
    role: "assistant",
    model,
    content: [],
    stop_reason: null,
    stop_sequence: null,
    usage: usageOf(answers),
  };
}

function endOf(last: ChatPiece | undefined): Pick<Message, "stop_reason" | "stop_sequence"> {
  const { finishReason = "length", stop } = last ?? {};
  return {
    stop_reason: stop === undefined ? stopReasons[finishReason] : "stop_sequence",
    stop_sequence: stop ?? null,
  };
}

/** Numbers of tokens. What was not read is told apart from the input, as in Anthropic's API. */
function usageOf({ run, counts }: Answers): Message["usage"] {
  return {
    input_tokens: run.promptTokens - run.cachedTokens,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: run.cachedTokens,
    output_tokens: run.choices.reduce((sum, { tokens }) => sum + tokens, 0),
    output_tokens_details: { thinking_tokens: counts.reasoning },
  };
}
