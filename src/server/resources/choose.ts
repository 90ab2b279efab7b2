// /v1/choose: ranks given continuations by how probable the model finds them after a prompt.

import * as v from "valibot";
import { formatNamed } from "../../chat/chat-prompt.js";
import { scoreContinuations } from "../../generation/continuations.js";
import type { Snapshot } from "../../generation/snapshot.js";
import { answerHead, newId, secondsSince1970 } from "../answers.js";
import { conversationFields, conversationPrompt } from "../chat-messages.js";
import { invalidField, notSupported } from "../errors.js";
import { cachedTokensOf, tokensOf } from "../inference.js";
import type { ReadPrompt } from "../prompt-reader.js";
import { type Prompt, type PromptEncoder, type PromptStart, promptTooLong } from "../prompts.js";
import { type Call, type Route, withBody } from "../route.js";
import { type Described, number, optional, text, wholeNumber } from "../schema.js";
import type { Services } from "../services.js";
import { startOf, stateField } from "../starting-state.js";
import { checkedTokens } from "../token-limit.js";

const maxChoices = 128;

const body = v.object({
  model: optional(v.string()),
  prompt: optional(v.union([v.string(), v.pipe(v.array(wholeNumber(0)), v.minLength(1))])),
  messages: optional(conversationFields.messages),
  ...stateField,
  choices: v.pipe(v.array(text()), v.minLength(1), v.maxLength(maxChoices)),
  /** Whether a choice counts by how much more probable the prompt makes it than it is without. */
  calibrate: optional(v.boolean()),
});
type Body = v.InferOutput<typeof body>;

const choiceRanking = v.strictObject({
  ...answerHead("choice.ranking"),
  /** The best first. */
  choices: v.array(
    v.strictObject({
      index: wholeNumber(0),
      text: v.string(),
      tokens: wholeNumber(1),
      logprob: v.number(),
      mean_logprob: v.number(),
      calibrated_logprob: v.exactOptional(v.number()),
      probability: number(0, 1),
    }),
  ),
  usage: v.strictObject({
    prompt_tokens: wholeNumber(0),
    choice_tokens: wholeNumber(0),
    total_tokens: wholeNumber(0),
    prompt_tokens_details: v.strictObject({ cached_tokens: wholeNumber(0) }),
  }),
});
type ChoiceRanking = Described<typeof choiceRanking>;

export function choose(services: Services): Route[] {
  return [
    withBody({
      method: "post",
      path: "/v1/choose",
      summary: "Rank continuations by how probable they are",
      body,
      answer: choiceRanking,
      handle: (call) => rank(services, call),
    }),
  ];
}

/** What is read, and what may follow it. */
interface Question {
  readonly prompt: Prompt;
  /** What calibration compares with: the beginning of a text, or of an answer. */
  readonly without: Prompt | undefined;
  /** The tokens of each choice. */
  readonly choices: readonly Int32Array[];
}

async function rank(services: Services, { body, owner, signal, note }: Call<Body>): Promise<Response> {
  const { model, served, inference, options } = services;
  served.check(body.model);
  const { prompt, without, choices } = await question(services, body, await startOf(services, owner, body.state));
  const choiceTokens = choices.reduce((sum, { length }) => sum + length, 0);
  const { promptTokens, concurrent } = options.limits;
  if (choiceTokens > promptTokens) throw promptTooLong(`${choiceTokens} tokens in its choices`, promptTokens);
  const places = Math.min(choices.length, concurrent);
  const prompts = [prompt, ...(without ? [without] : [])];
  const answer = await inference.read({ owner, prompts, places, signal }, async (read, ended) => {
    const score = async ({ snapshot }: { readonly snapshot: Snapshot }) => {
      const scores = await scoreContinuations(model, snapshot, choices, places, ended);
      return scores.map((tokens) => tokens.reduce((sum, { logProbability }) => sum + logProbability, 0));
    };
    const sums = await score(read[0] as ReadPrompt);
    const sumsWithout = read[1] && (await score(read[1]));
    const tokens = { prompt: tokensOf([prompt]), cached: cachedTokensOf(read.slice(0, 1)) };
    note({ promptTokens: tokens.prompt, cachedTokens: tokens.cached });
    return {
      choices: ranked(body.choices, choices, sums, sumsWithout),
      usage: {
        prompt_tokens: tokens.prompt,
        choice_tokens: choiceTokens,
        total_tokens: tokens.prompt + choiceTokens,
        prompt_tokens_details: { cached_tokens: tokens.cached },
      },
    };
  });
  const created = secondsSince1970();
  const ranking: ChoiceRanking = {
    id: newId("choose"),
    object: "choice.ranking",
    created,
    model: served.id,
    ...answer,
  };
  return Response.json(ranking);
}

async function question(services: Services, body: Body, start: PromptStart | undefined): Promise<Question> {
  const { model, prompts } = services;
  const { prompt, messages, calibrate } = body;
  if (prompt !== undefined && messages) throw invalidField("prompt", "expected either a prompt or messages");
  if (messages) {
    const { pieces, format: name } = conversationPrompt({ messages }, services, start);
    const format = formatNamed(name);
    const choices = body.choices.map((choice, i) => {
      // A choice stands where answers stand in a conversation: after the name of whoever gives it, and without a thought.
      const said = format.message({ role: "assistant", content: choice }).slice(format.cue.length);
      const answer = said.slice(0, -format.separator.length);
      if (answer === "") throw invalidField(`choices[${i}]`, "expected some text");
      return answer;
    });
    return {
      prompt: await prompts.ofPieces([...pieces.slice(0, -1), format.cue], start),
      without: calibrate ? await prompts.ofPieces([format.cue]) : undefined,
      choices: await tokensOfAll(choices, prompts),
    };
  }
  if (prompt === undefined && !start) throw invalidField("prompt", "expected a prompt, messages or a state");
  if (calibrate && model.tokenizer.endOfText === undefined) {
    throw notSupported("calibrate", "is not supported, since the tokenizer has no token that begins a text");
  }
  const given = prompt ?? "";
  return {
    prompt:
      typeof given === "string"
        ? await prompts.ofPieces([given], start)
        : prompts.ofTokens(checkedTokens("prompt", given, model), start),
    without: calibrate ? prompts.ofTokens([]) : undefined,
    choices: await tokensOfAll(body.choices, prompts),
  };
}

async function tokensOfAll(texts: readonly string[], prompts: PromptEncoder): Promise<Int32Array[]> {
  const all = await Promise.all(texts.map((text) => prompts.ofPieces([text])));
  return all.map(({ tokens }) => tokens);
}

/** The choices, the best first. */
function ranked(
  texts: readonly string[],
  tokens: readonly Int32Array[],
  sums: readonly number[],
  sumsWithout: readonly number[] | undefined,
) {
  const counted = sums.map((sum, i) => sum - (sumsWithout?.[i] ?? 0));
  const largest = Math.max(...counted);
  const weights = counted.map((value) => Math.exp(value - largest));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return texts
    .map((choice, index) => {
      const [logprob = 0, { length } = { length: 1 }] = [sums[index], tokens[index]];
      return {
        index,
        text: choice,
        tokens: length,
        logprob,
        mean_logprob: logprob / length,
        ...(sumsWithout && { calibrated_logprob: counted[index] as number }),
        probability: (weights[index] as number) / total,
      };
    })
    .sort((a, b) => (counted[b.index] as number) - (counted[a.index] as number));
}
