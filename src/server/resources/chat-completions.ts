// /v1/chat/completions: answers to conversations.

import * as v from "valibot";
import { newId, secondsSince1970, streamedAnswer, usageOf, wholeAnswer } from "../answers.js";
import { conversationFields, conversationPrompt, defaultSampling } from "../chat-messages.js";
import { type ChatPiece, chatPieces } from "../chat-pieces.js";
import { constraintFields, requestedConstraint } from "../constraints.js";
import { invalidField } from "../errors.js";
import type { TextRun } from "../inference.js";
import type { PromptStart } from "../prompts.js";
import { type Call, type Route, withBody } from "../route.js";
import { requestedOptions, samplingFields } from "../sampling-fields.js";
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
      body,
      contentTypes: ["application/json", "text/event-stream"],
      handle: (call) => answer(services, call),
    }),
  ];
}

async function answer(services: Services, call: Call<Body>): Promise<Response> {
  const { body, signal } = call;
  const { served, prompts, inference, options } = services;
  served.check(body.model);
  const start = await startOf(services, call.owner, body.state);
  const { pieces, thinking, generation } = request(services, body, start);
  const prompt = prompts.ofPieces(pieces, start);
  const run = await inference.start({ prompts: [prompt], choices: body.n ?? 1, generation, signal });
  const head: Head = { id: newId("chatcmpl"), created: secondsSince1970(), model: served.id };
  const counts = { reasoning: 0 };
  const written = chatPieces(services, run, thinking, counts);
  if (!body.stream) return wholeAnswer(call, run, whole(head, run, written, body, counts));
  return streamedAnswer(call, run, chunks(head, run, written, body, counts), options.limits);
}

/** The prompt, and how its answer is to be written. */
function request(services: Services, body: Body, start: PromptStart | undefined) {
  const { model, options } = services;
  if (body.top_logprobs !== undefined && !body.logprobs) {
    throw invalidField("top_logprobs", "expected logprobs to be true beside it");
  }
  const constrain = requestedConstraint(body);
  const { pieces, stop: formatStop, thinking } = conversationPrompt(body, services, start);
  const asked = requestedOptions(body, defaultSampling(services, thinking), model.tokenizer, model.info.vocabulary);
  const [field, wanted] =
    body.max_completion_tokens === undefined
      ? (["max_tokens", body.max_tokens] as const)
      : (["max_completion_tokens", body.max_completion_tokens] as const);
  const generation = {
    ...asked,
    maxTokens: checkMaxTokens(field, wanted, options.limits.maxTokens) ?? options.limits.maxTokens,
    stop: [...formatStop, ...(asked.stop ?? [])],
    ...(constrain && { constrain }),
    ...(body.logprobs && { logProbabilities: body.top_logprobs ?? 0 }),
  };
  return { pieces, thinking, generation };
}

async function whole(
  head: Head,
  run: TextRun,
  pieces: AsyncGenerator<ChatPiece, void, void>,
  { logprobs }: Body,
  counts: { readonly reasoning: number },
): Promise<object> {
  const answers = run.choices.map(() => ({
    thought: "",
    text: "",
    logprobs: [] as TokenLogprob[],
    finishReason: "length",
  }));
  for await (const piece of pieces) {
    const answer = answers[piece.index] as (typeof answers)[number];
    answer.thought += piece.thought;
    answer.text += piece.text;
    answer.logprobs.push(...piece.logprobs);
    if (piece.finishReason) answer.finishReason = piece.finishReason;
  }
  return {
    id: head.id,
    object: "chat.completion",
    created: head.created,
    model: head.model,
    choices: answers.map(({ thought, text, logprobs: tokens, finishReason }, index) => ({
      index,
      message: {
        role: "assistant",
        content: text,
        refusal: null,
        ...(thought !== "" && { reasoning_content: thought }),
      },
      logprobs: logprobs ? { content: tokens, refusal: null } : null,
      finish_reason: finishReason,
    })),
    usage: usageOf(run, counts.reasoning),
  };
}

async function* chunks(
  head: Head,
  run: TextRun,
  pieces: AsyncGenerator<ChatPiece, void, void>,
  { logprobs, stream_options: options }: Body,
  counts: { readonly reasoning: number },
): AsyncGenerator<object, void, void> {
  const withUsage = options?.include_usage === true;
  const chunk = (index: number, delta: object, tokens: readonly TokenLogprob[], finishReason: string | null) => ({
    id: head.id,
    object: "chat.completion.chunk",
    created: head.created,
    model: head.model,
    choices: [
      { index, delta, logprobs: logprobs ? { content: tokens, refusal: null } : null, finish_reason: finishReason },
    ],
    ...(withUsage && { usage: null }),
  });
  for (const { index } of run.choices) yield chunk(index, { role: "assistant", content: "" }, [], null);
  for await (const { index, thought, text, logprobs: tokens, finishReason } of pieces) {
    if (thought !== "") yield chunk(index, { reasoning_content: thought }, [], null);
    if (text !== "" || tokens.length > 0) yield chunk(index, { content: text }, tokens, null);
    if (finishReason) yield chunk(index, {}, [], finishReason);
  }
  if (withUsage) {
    const { id, created, model } = head;
    yield { id, object: "chat.completion.chunk", created, model, choices: [], usage: usageOf(run, counts.reasoning) };
  }
}
