// What /v1/chat/completions answers: the object of a whole answer, and those of a stream.

import * as v from "valibot";
import { answerHead, usage } from "../answers.js";
import { type Described, wholeNumber } from "../schema.js";
import { tokenLogprob } from "../token-text.js";

const logprobs = v.nullable(v.strictObject({ content: v.array(tokenLogprob), refusal: v.null() }));
const end = v.picklist(["stop", "length", "tool_calls"]);
const call = { id: v.string(), type: v.literal("function") };

export const chatCompletion = v.strictObject({
  ...answerHead("chat.completion"),
  choices: v.array(
    v.strictObject({
      index: wholeNumber(0),
      message: v.strictObject({
        role: v.literal("assistant"),
        content: v.nullable(v.string()),
        refusal: v.null(),
        reasoning_content: v.exactOptional(v.string()),
        tool_calls: v.exactOptional(
          v.array(v.strictObject({ ...call, function: v.strictObject({ name: v.string(), arguments: v.string() }) })),
        ),
      }),
      logprobs,
      finish_reason: end,
    }),
  ),
  usage,
});

/** What a chunk adds to a message. */
const delta = v.strictObject({
  role: v.exactOptional(v.literal("assistant")),
  content: v.exactOptional(v.string()),
  reasoning_content: v.exactOptional(v.string()),
  tool_calls: v.exactOptional(
    v.array(
      v.union([
        v.strictObject({
          index: wholeNumber(0),
          ...call,
          function: v.strictObject({ name: v.string(), arguments: v.string() }),
        }),
        v.strictObject({ index: wholeNumber(0), function: v.strictObject({ arguments: v.string() }) }),
      ]),
    ),
  ),
});

export const chatChunk = v.strictObject({
  ...answerHead("chat.completion.chunk"),
  choices: v.array(v.strictObject({ index: wholeNumber(0), delta, logprobs, finish_reason: v.nullable(end) })),
  usage: v.exactOptional(v.nullable(usage)),
});

export type ChatCompletion = Described<typeof chatCompletion>;
export type ChatChunk = Described<typeof chatChunk>;
/** What a chunk adds to a message. */
export type ChatDelta = Described<typeof delta>;
