// /v1/completions: texts that continue prompts.

import * as v from "valibot";
import {
  type LegacyTokens,
  type TextChunk,
  type TextCompletion,
  textChunk,
  textCompletion,
} from "../answer-schemas/text-completion.js";
import { newId, secondsSince1970, stepsOf, streamedAnswer, usageOf, wholeAnswer } from "../answers.js";
import { constraintFields, requestedConstraint } from "../constraints.js";
import { errorBody, notSupported } from "../errors.js";
import type { TextRun } from "../inference.js";
import { type PromptToken, promptLogprobs } from "../prompt-logprobs.js";
import type { Prompt, PromptStart } from "../prompts.js";
import { type Call, type Route, withBody } from "../route.js";
import { requestedOptions, samplingFields, withoutBans } from "../sampling-fields.js";
import { optional, wholeNumber } from "../schema.js";
import type { Services } from "../services.js";
import { startOf, stateField } from "../starting-state.js";
import { checkedTokens, checkMaxTokens } from "../token-limit.js";
import { stepLogprob, tokenName, tokenOffsets } from "../token-text.js";

/** Tokens of a text where the request does not say, as in OpenAI's API. */
const usualTokens = 16;
/** The most prompts of a request. */
const maxPrompts = 128;

const ids = v.pipe(v.array(wholeNumber(0)), v.minLength(1));
const body = v.object({
  model: optional(v.string()),
  prompt: v.union([
    v.string(),
    ids,
    v.pipe(v.array(v.string()), v.minLength(1), v.maxLength(maxPrompts)),
    v.pipe(v.array(ids), v.minLength(1), v.maxLength(maxPrompts)),
  ]),
  ...samplingFields,
  ...constraintFields,
  ...stateField,
  max_tokens: optional(wholeNumber(0)),
  logprobs: optional(wholeNumber(0, 20)),
  echo: optional(v.boolean()),
  best_of: optional(wholeNumber(1)),
  suffix: optional(v.string()),
  stream: optional(v.boolean()),
  stream_options: optional(v.object({ include_usage: optional(v.boolean()) })),
});
type Body = v.InferOutput<typeof body>;

/** What identifies an answer. */
type Head = Pick<TextCompletion, "id" | "object" | "created" | "model">;

/** A piece of a text. */
interface Piece {
  readonly index: number;
  readonly text: string;
  readonly tokens: readonly PromptToken[];
  /** Where they begin in the text of the piece; by default at its beginning, as a step's only token does. */
  readonly offsets?: readonly number[];
  /** Present when the text has ended. */
  readonly finishReason?: "stop" | "length";
}

export function completions(services: Services): Route[] {
  return [
    withBody({
      method: "post",
      path: "/v1/completions",
      summary: "Continue a text",
      operation: "text_completion",
      body,
      answer: textCompletion,
      events: v.union([textChunk, errorBody]),
      handle: (call) => complete(services, call),
    }),
  ];
}

async function complete(services: Services, call: Call<Body>): Promise<Response> {
  const { body } = call;
  const { model, served, inference, options } = services;
  served.check(body.model);
  const choices = body.n ?? 1;
  if (body.suffix) throw notSupported("suffix", "is not supported");
  if (body.best_of !== undefined && body.best_of !== choices)
    throw notSupported("best_of", "is not supported beside another n");
  const start = await startOf(services, call.owner, body.state);
  const prompts = await promptsOf(services, body.prompt, start);
  const constrain = await requestedConstraint(body, services);
  const defaults = options.sampling;
  const maxTokens = checkMaxTokens("max_tokens", body.max_tokens, options.limits.maxTokens) ?? usualTokens;
  const asked = requestedOptions(body, defaults, model.tokenizer, model.info.vocabulary);
  const generation = {
    ...(constrain ? withoutBans(asked) : asked),
    maxTokens: Math.max(1, maxTokens),
    ...(constrain && { constrain }),
    ...(body.logprobs !== undefined && { logProbabilities: body.logprobs }),
  };
  const run = await inference.start({ owner: call.owner, prompts, choices, generation, signal: call.signal });
  const pieces = piecesOf(services, run, prompts, body, maxTokens, call.signal);
  const head = { id: newId("cmpl"), object: "text_completion" as const, created: secondsSince1970(), model: served.id };
  if (!body.stream) return wholeAnswer(call, run, whole(head, run, pieces, body));
  return streamedAnswer(call, run, chunks(head, run, pieces, body), options.limits);
}

function promptsOf(
  { prompts, model }: Services,
  given: Body["prompt"],
  start: PromptStart | undefined,
): Promise<Prompt[]> {
  const all: readonly (string | number[])[] =
    typeof given === "string" ? [given] : isNumbers(given) ? [given] : (given as (string | number[])[]);
  return Promise.all(
    all.map((one) =>
      typeof one === "string"
        ? prompts.ofPieces([one], start)
        : prompts.ofTokens(checkedTokens("prompt", one, model), start),
    ),
  );
}

function isNumbers(values: readonly unknown[]): values is number[] {
  return typeof values[0] === "number";
}

async function* piecesOf(
  { model, options }: Services,
  run: TextRun,
  prompts: readonly Prompt[],
  { echo, logprobs, n = 1 }: Body,
  maxTokens: number,
  signal: AbortSignal,
): AsyncGenerator<Piece, void, void> {
  try {
    if (echo) {
      for (const [i, { tokens, start }] of prompts.entries()) {
        const first = start?.snapshot ?? options.state;
        const told = logprobs === undefined ? [] : await promptLogprobs(model, tokens, logprobs, first, signal);
        const text = model.tokenizer.decode(tokens);
        const offsets = tokenOffsets(model.tokenizer, tokens);
        for (let index = i * n; index < (i + 1) * n; index++) yield { index, text, tokens: told, offsets };
      }
    }
    if (maxTokens === 0) {
      for (const { index } of run.choices) yield { index, text: "", tokens: [], finishReason: "length" };
      return;
    }
    for await (const { choice, step } of stepsOf(run)) {
      const { index, finishReason } = choice;
      const logprob = step && logprobs !== undefined ? stepLogprob(model.tokenizer, step) : undefined;
      yield step
        ? { index, text: step.text, tokens: logprob ? [logprob] : [] }
        : { index, text: "", tokens: [], finishReason };
    }
  } finally {
    await run.end();
  }
}

/** Gathers log-probabilities in the form of /v1/completions. */
class LegacyLogprobs {
  readonly #offsets = new Map<number, number>();

  /** Those of a piece, whose text follows what was told of its choice before. */
  of({ index, text, tokens, offsets = [] }: Piece): LegacyTokens {
    const before = this.#offsets.get(index) ?? 0;
    this.#offsets.set(index, before + text.length);
    return {
      tokens: tokens.map(tokenName),
      token_logprobs: tokens.map(({ logprob }) => logprob),
      top_logprobs: tokens.map(
        (one) => one.top_logprobs && Object.fromEntries(one.top_logprobs.map((top) => [tokenName(top), top.logprob])),
      ),
      text_offset: tokens.map((_, i) => before + (offsets[i] ?? 0)),
    };
  }
}

async function whole(
  head: Head,
  run: TextRun,
  pieces: AsyncGenerator<Piece, void, void>,
  { logprobs }: Body,
): Promise<TextCompletion> {
  const legacy = new LegacyLogprobs();
  const choices = run.choices.map(({ index }) => ({
    text: "",
    index,
    logprobs:
      logprobs === undefined
        ? null
        : ({ tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] } as LegacyTokens),
    finish_reason: "length" as "stop" | "length",
  }));
  for await (const piece of pieces) {
    const choice = choices[piece.index] as (typeof choices)[number];
    choice.text += piece.text;
    if (choice.logprobs) {
      const told = legacy.of(piece);
      choice.logprobs.tokens.push(...told.tokens);
      choice.logprobs.token_logprobs.push(...told.token_logprobs);
      choice.logprobs.top_logprobs.push(...told.top_logprobs);
      choice.logprobs.text_offset.push(...told.text_offset);
    }
    if (piece.finishReason) choice.finish_reason = piece.finishReason;
  }
  return { ...head, choices, usage: usageOf(run) };
}

async function* chunks(
  head: Head,
  run: TextRun,
  pieces: AsyncGenerator<Piece, void, void>,
  { logprobs, stream_options: options }: Body,
): AsyncGenerator<TextChunk, void, void> {
  const legacy = new LegacyLogprobs();
  const withUsage = options?.include_usage === true;
  for await (const piece of pieces) {
    const { index, text, finishReason = null } = piece;
    if (text === "" && piece.tokens.length === 0 && finishReason === null) continue;
    const told = logprobs === undefined ? null : legacy.of(piece);
    const choice = { text, index, logprobs: told, finish_reason: finishReason };
    yield { ...head, choices: [choice], ...(withUsage && { usage: null }) };
  }
  if (withUsage) yield { ...head, choices: [], usage: usageOf(run) };
}
