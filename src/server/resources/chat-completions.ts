// /v1/chat/completions: answers to conversations.

import * as v from "valibot";
import type { ToolCallPiece } from "../../chat/tool-call-reader.js";
import {
  type ChatChunk,
  type ChatCompletion,
  type ChatDelta,
  chatChunk,
  chatCompletion,
} from "../answer-schemas/chat-completion.js";
import { newId, secondsSince1970, streamedAnswer, usageOf, wholeAnswer } from "../answers.js";
import { type Answers, startAnswers } from "../chat-answers.js";
import { conversationFields } from "../chat-messages.js";
import type { ChatEnd } from "../chat-pieces.js";
import { constraintFields } from "../constraints.js";
import { errorBody, invalidField } from "../errors.js";
import { type Call, type Route, withBody } from "../route.js";
import { samplingFields } from "../sampling-fields.js";
import { optional, wholeNumber } from "../schema.js";
import type { Services } from "../services.js";
import { startOf, stateField } from "../starting-state.js";
import { checkMaxTokens } from "../token-limit.js";
import type { TokenLogprob } from "../token-text.js";

const body = v.object({
  model: optional(v.string()),
  ...conversationFields,
  ...samplingFields,
  ...constraintFields,
  ...stateField,
  max_tokens: optional(wholeNumber(1)),
  max_completion_tokens: optional(wholeNumber(1)),
  logprobs: optional(v.boolean()),
  top_logprobs: optional(wholeNumber(0, 20)),
  stream: optional(v.boolean()),
  stream_options: optional(v.object({ include_usage: optional(v.boolean()) })),
});
type Body = v.InferOutput<typeof body>;

/** What identifies an answer. */
interface Head {
  readonly id: string;
  readonly created: number;
  readonly model: string;
}

export function chatCompletions(services: Services): Route[] {
  return [
    withBody({
      method: "post",
      path: "/v1/chat/completions",
      summary: "Answer a conversation",
      operation: "chat",
      body,
      answer: chatCompletion,
      events: v.union([chatChunk, errorBody]),
      handle: (call) => answer(services, call),
    }),
  ];
}

async function answer(services: Services, call: Call<Body>): Promise<Response> {
  const { body, owner, signal } = call;
  const { served, options } = services;
  served.check(body.model);
  if (body.top_logprobs !== undefined && !body.logprobs) {
    throw invalidField("top_logprobs", "expected logprobs to be true beside it");
  }
  const [field, wanted] =
    body.max_completion_tokens === undefined
      ? (["max_tokens", body.max_tokens] as const)
      : (["max_completion_tokens", body.max_completion_tokens] as const);
  const maxTokens = checkMaxTokens(field, wanted, options.limits.maxTokens);
  const logProbabilities = body.logprobs ? (body.top_logprobs ?? 0) : undefined;
  const beginning = { start: await startOf(services, owner, body.state) };
  const answers = await startAnswers(services, body, { owner, maxTokens, logProbabilities, beginning, signal });
  const head: Head = { id: newId("chatcmpl"), created: secondsSince1970(), model: served.id };
  if (!body.stream) return wholeAnswer(call, answers.run, whole(head, answers, body));
  return streamedAnswer(call, answers.run, chunks(head, answers, body), options.limits);
}

/** An answer as it is gathered. */
interface Gathered {
  thought: string;
  text: string;
  readonly calls: { readonly id: string; readonly type: "function"; function: { name: string; arguments: string } }[];
  readonly logprobs: TokenLogprob[];
  end: ChatEnd;
}

async function whole(head: Head, { run, pieces, counts }: Answers, { logprobs }: Body): Promise<ChatCompletion> {
  const answers = run.choices.map((): Gathered => ({ thought: "", text: "", calls: [], logprobs: [], end: "length" }));
  for await (const piece of pieces) {
    const answer = answers[piece.index] as Gathered;
    answer.thought += piece.thought;
    answer.text += piece.text;
    answer.logprobs.push(...piece.logprobs);
    for (const { call, name, arguments: values } of piece.calls) {
      if (name !== undefined)
        answer.calls.push({ id: newCallId(), type: "function", function: { name, arguments: "" } });
      (answer.calls[call] as Gathered["calls"][number]).function.arguments += values;
    }
    if (piece.finishReason) answer.end = piece.finishReason;
  }
  return {
    id: head.id,
    object: "chat.completion",
    created: head.created,
    model: head.model,
    choices: answers.map(({ thought, text, calls, logprobs: tokens, end }, index) => ({
      index,
      message: {
        role: "assistant",
        content: text === "" && calls.length > 0 ? null : text,
        refusal: null,
        ...(thought !== "" && { reasoning_content: thought }),
        ...(calls.length > 0 && { tool_calls: calls }),
      },
      logprobs: logprobs ? { content: tokens, refusal: null } : null,
      finish_reason: end,
    })),
    usage: usageOf(run, counts.reasoning),
  };
}

async function* chunks(
  head: Head,
  { run, pieces, counts }: Answers,
  { logprobs, stream_options: options }: Body,
): AsyncGenerator<ChatChunk, void, void> {
  const withUsage = options?.include_usage === true;
  const chunk = (index: number, delta: ChatDelta, tokens: readonly TokenLogprob[], end: ChatEnd | null): ChatChunk => ({
    id: head.id,
    object: "chat.completion.chunk",
    created: head.created,
    model: head.model,
    choices: [{ index, delta, logprobs: logprobs ? { content: tokens, refusal: null } : null, finish_reason: end }],
    ...(withUsage && { usage: null }),
  });
  for (const { index } of run.choices) yield chunk(index, { role: "assistant", content: "" }, [], null);
  for await (const { index, thought, text, calls, logprobs: tokens, finishReason: end } of pieces) {
    if (thought !== "") yield chunk(index, { reasoning_content: thought }, [], null);
    if (text !== "" || tokens.length > 0) yield chunk(index, { content: text }, tokens, null);
    for (const piece of calls) {
      const isEmpty = piece.name === undefined && piece.arguments === "";
      if (!isEmpty) yield chunk(index, { tool_calls: [callDelta(piece)] }, [], null);
    }
    if (end) yield chunk(index, {}, [], end);
  }
  if (withUsage) {
    const { id, created, model } = head;
    yield { id, object: "chat.completion.chunk", created, model, choices: [], usage: usageOf(run, counts.reasoning) };
  }
}

/** A piece of a call; the first has its id and name. */
function callDelta({
  call: index,
  name,
  arguments: values,
}: ToolCallPiece): NonNullable<ChatDelta["tool_calls"]>[number] {
  if (name === undefined) return { index, function: { arguments: values } };
  return { index, id: newCallId(), type: "function", function: { name, arguments: values } };
}

function newCallId(): string {
  return newId("call");
}
