// /v1/chat/completions: answers to conversations.

import * as v from "valibot";
import type { Thinking } from "../../chat/chat-format.js";
import { ThinkingReader } from "../../chat/thinking-reader.js";
import type { SamplingOptions } from "../../sampling/sampling-options.js";
import { samplingPresets } from "../../sampling/sampling-presets.js";
import { newId, secondsSince1970, stepsOf, streamedAnswer, usageOf, wholeAnswer } from "../answers.js";
import { conversationFields, conversationPrompt, takesThought } from "../chat-messages.js";
import { constraintFields, requestedConstraint } from "../constraints.js";
import { invalidField } from "../errors.js";
import type { TextRun } from "../inference.js";
import { type Call, type Route, withBody } from "../route.js";
import { requestedOptions, samplingFields } from "../sampling-fields.js";
import { optional, wholeNumber } from "../schema.js";
import type { Services } from "../services.js";
import { checkMaxTokens } from "../token-limit.js";
import { stepLogprob, type TokenLogprob } from "../token-text.js";

const body = v.object({
  model: optional(v.string()),
  ...conversationFields,
  ...samplingFields,
  ...constraintFields,
  max_tokens: optional(wholeNumber(1)),
  max_completion_tokens: optional(wholeNumber(1)),
  logprobs: optional(v.boolean()),
  top_logprobs: optional(wholeNumber(0, 20)),
  stream: optional(v.boolean()),
  stream_options: optional(v.object({ include_usage: optional(v.boolean()) })),
});
type Body = v.InferOutput<typeof body>;

/** A piece of an answer: what its readers are told of one step. */
interface Piece {
  readonly index: number;
  readonly thought: string;
  readonly text: string;
  readonly logprobs: readonly TokenLogprob[];
  /** Present when the answer has ended. */
  readonly finishReason?: "stop" | "length";
}

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
  const { prompt, thinking, generation } = request(services, body);
  const run = await inference.start({ prompts: [prompts.ofPieces(prompt)], choices: body.n ?? 1, generation, signal });
  const head: Head = { id: newId("chatcmpl"), created: secondsSince1970(), model: served.id };
  const counts = { reasoning: 0 };
  const pieces = piecesOf(services, run, thinking, counts);
  if (!body.stream) return wholeAnswer(call, run, whole(head, run, pieces, body, counts));
  return streamedAnswer(call, run, chunks(head, run, pieces, body, counts), options.limits);
}

/** The prompt, and how its answer is to be written. */
function request(services: Services, body: Body) {
  const { model, options } = services;
  if (body.top_logprobs !== undefined && !body.logprobs) {
    throw invalidField("top_logprobs", "expected logprobs to be true beside it");
  }
  const constrain = requestedConstraint(body);
  const { pieces: prompt, stop: formatStop, thinking } = conversationPrompt(body, services);
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
  return { prompt, thinking, generation };
}

/** The options of sampling that are recommended for a model, by whether it thinks, under those that the server was given. */
function defaultSampling({ options }: Services, thinking: Thinking): SamplingOptions {
  const preset =
    thinking === "auto"
      ? samplingPresets.chat
      : takesThought(thinking)
        ? samplingPresets.thinking
        : samplingPresets.direct;
  return { ...preset, ...options.sampling };
}

async function* piecesOf(
  { model }: Services,
  run: TextRun,
  thinking: Thinking,
  counts: { reasoning: number },
): AsyncGenerator<Piece, void, void> {
  const readers = run.choices.map(() => new ThinkingReader(thinking));
  for await (const { choice, step } of stepsOf(run)) {
    const { index, finishReason } = choice;
    const reader = readers[index] as ThinkingReader;
    if (!step) {
      yield { index, ...reader.finish(), logprobs: [], finishReason };
      continue;
    }
    const piece = reader.push(step.text);
    if (piece.thought !== "") counts.reasoning++;
    // Log-probabilities are those of the answer: a thought is not part of it.
    const logprob = reader.isThinking ? undefined : stepLogprob(model.tokenizer, step);
    yield { index, ...piece, logprobs: logprob ? [logprob] : [] };
  }
}

async function whole(
  head: Head,
  run: TextRun,
  pieces: AsyncGenerator<Piece, void, void>,
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
  pieces: AsyncGenerator<Piece, void, void>,
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
