// What /v1/completions answers: the object of a whole answer, and those of a stream.

import * as v from "valibot";
import { answerHead, usage } from "../answers.js";
import { type Described, wholeNumber } from "../schema.js";

/** The first token of a prompt has nothing before it that it could be expected after. */
const logprobs = v.strictObject({
  tokens: v.array(v.string()),
  token_logprobs: v.array(v.nullable(v.number())),
  top_logprobs: v.array(v.nullable(v.record(v.string(), v.number()))),
  text_offset: v.array(wholeNumber(0)),
});
const end = v.picklist(["stop", "length"]);
const choice = { text: v.string(), index: wholeNumber(0), logprobs: v.nullable(logprobs) };

export const textCompletion = v.strictObject({
  ...answerHead("text_completion"),
  choices: v.array(v.strictObject({ ...choice, finish_reason: end })),
  usage,
});

export const textChunk = v.strictObject({
  ...answerHead("text_completion"),
  choices: v.array(v.strictObject({ ...choice, finish_reason: v.nullable(end) })),
  usage: v.exactOptional(v.nullable(usage)),
});

export type TextCompletion = Described<typeof textCompletion>;
export type TextChunk = Described<typeof textChunk>;
/** Log-probabilities of tokens, as they are gathered. */
export type LegacyTokens = v.InferOutput<typeof logprobs>;
