// /tokenize and /detokenize: texts to token ids and back.

import * as v from "valibot";
import { invalidField } from "../errors.js";
import { type Route, withBody } from "../route.js";
import { optional, wholeNumber } from "../schema.js";
import type { Services } from "../services.js";
import { checkedTokens } from "../token-limit.js";

const tokenizeBody = v.object({
  model: optional(v.string()),
  content: optional(v.string()),
  prompt: optional(v.string()),
  with_pieces: optional(v.boolean()),
});
const detokenizeBody = v.object({ model: optional(v.string()), tokens: v.array(wholeNumber(0)) });

const tokenizeAnswer = v.strictObject({
  tokens: v.union([
    v.array(wholeNumber(0)),
    v.array(v.strictObject({ id: wholeNumber(0), piece: v.union([v.string(), v.array(wholeNumber(0, 255))]) })),
  ]),
  count: wholeNumber(0),
});
const detokenizeAnswer = v.strictObject({ content: v.string() });

export function tokens({ model, served, prompts }: Services): Route[] {
  return [
    withBody({
      method: "post",
      path: "/tokenize",
      summary: "Turn a text into token ids",
      body: tokenizeBody,
      answer: tokenizeAnswer,
      handle: async ({ body }) => {
        served.check(body.model);
        const text = body.content ?? body.prompt;
        if (text === undefined) throw invalidField("content", "expected a string");
        const ids = Array.from(await prompts.tokensOf(text));
        if (!body.with_pieces) return Response.json({ tokens: ids, count: ids.length });
        return Response.json({
          tokens: ids.map((id) => ({ id, piece: pieceOf(model.tokenizer, id) })),
          count: ids.length,
        });
      },
    }),
    withBody({
      method: "post",
      path: "/detokenize",
      summary: "Turn token ids into a text",
      body: detokenizeBody,
      answer: detokenizeAnswer,
      handle: ({ body }) => {
        served.check(body.model);
        return Response.json({ content: model.tokenizer.decode(checkedTokens("tokens", body.tokens, model)) });
      },
    }),
  ];
}

/** The text of a token, or its bytes where they are not whole characters. */
function pieceOf({ bytesOf, decode }: Services["model"]["tokenizer"], id: number): string | number[] {
  const bytes = bytesOf?.(id);
  if (!bytes) return decode([id]);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return [...bytes];
  }
}
