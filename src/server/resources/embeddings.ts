// /v1/embeddings: texts as vectors.

import * as v from "valibot";
import { embed, shortened } from "../embedding.js";
import { invalidField, senselessState } from "../errors.js";
import { type Prompt, promptTooLong } from "../prompts.js";
import { type Call, type Route, withBody } from "../route.js";
import { type Described, optional, text, wholeNumber } from "../schema.js";
import type { Services } from "../services.js";
import { startOf, stateField } from "../starting-state.js";
import { textsAtOnce } from "../texts-at-once.js";
import { checkedTokens } from "../token-limit.js";
import { tracedPasses } from "../tracing.js";

/** The most texts of a request, as in OpenAI's API. */
const maxTexts = 2048;

const ids = v.pipe(v.array(wholeNumber(0)), v.minLength(1));
const body = v.object({
  model: optional(v.string()),
  input: v.union([
    text(),
    ids,
    v.pipe(v.array(text()), v.minLength(1), v.maxLength(maxTexts)),
    v.pipe(v.array(ids), v.minLength(1), v.maxLength(maxTexts)),
  ]),
  encoding_format: optional(v.picklist(["float", "base64"])),
  dimensions: optional(wholeNumber(1)),
  ...stateField,
});
type Body = v.InferOutput<typeof body>;

const embeddingList = v.strictObject({
  object: v.literal("list"),
  data: v.array(
    v.strictObject({
      object: v.literal("embedding"),
      index: wholeNumber(0),
      /** As base64, the bytes of its floats, little endian. */
      embedding: v.union([v.array(v.number()), v.string()]),
    }),
  ),
  model: v.string(),
  usage: v.strictObject({ prompt_tokens: wholeNumber(0), total_tokens: wholeNumber(0) }),
});
type EmbeddingList = Described<typeof embeddingList>;

export function embeddings(services: Services): Route[] {
  return [
    withBody({
      method: "post",
      path: "/v1/embeddings",
      summary: "Turn texts into vectors",
      operation: "embeddings",
      body,
      answer: embeddingList,
      handle: (call) => answerOf(services, call),
    }),
  ];
}

async function answerOf(services: Services, call: Call<Body>): Promise<Response> {
  const { body, owner, signal } = call;
  const { model, served, inference, options, metrics } = services;
  served.check(body.model);
  const { width } = model.info;
  const dimensions = body.dimensions ?? width;
  if (dimensions > width)
    throw invalidField("dimensions", `expected at most ${width}, the width of the model, found ${dimensions}`);
  const texts = await textsOf(services, body.input);
  const start = await startOf(services, owner, body.state);
  const before = start?.snapshot ?? options.state;
  const promptTokens = texts.reduce((sum, { tokens }) => sum + tokens.length, 0);
  const vectors: Float32Array[] = [];
  const places = Math.min(textsAtOnce, texts.length, options.limits.concurrent);
  const passes = () => model.scheduler.passes;
  const readAll = async (stopping: AbortSignal) => {
    const waiting = texts.entries();
    let hasFailed = false;
    const readSome = async () => {
      for (const [i, { tokens }] of waiting) {
        if (hasFailed) return;
        const vector = shortened(await embed(model, tokens, before, stopping), dimensions);
        if (start && !vector.every(Number.isFinite)) throw senselessState();
        vectors[i] = vector;
        metrics.promptTokens.inc(tokens.length);
      }
    };
    const readers = Array.from({ length: places }, () =>
      readSome().catch((error: unknown) => {
        hasFailed = true;
        throw error;
      }),
    );
    // All have ended before their places are given back.
    for (const reader of await Promise.allSettled(readers)) if (reader.status === "rejected") throw reader.reason;
  };
  await inference.read({ owner, prompts: [], places, signal }, (_, stopping) =>
    tracedPasses("prompt", passes, () => readAll(stopping)),
  );
  call.note({ promptTokens, cachedTokens: 0, generatedTokens: 0 });
  const answer: EmbeddingList = {
    object: "list",
    data: vectors.map((vector, index) => ({
      object: "embedding",
      index,
      embedding: body.encoding_format === "base64" ? base64(vector) : [...vector],
    })),
    model: served.id,
    usage: { prompt_tokens: promptTokens, total_tokens: promptTokens },
  };
  return Response.json(answer);
}

/** @throws ApiError for ids that the model does not have, and for texts that are too long */
function textsOf({ prompts, model, options }: Services, input: Body["input"]): Promise<Prompt[]> {
  const all: readonly (string | number[])[] =
    typeof input === "string" || typeof input[0] === "number"
      ? [input as string | number[]]
      : (input as (string | number[])[]);
  const { promptTokens } = options.limits;
  const texts = all.map(async (one) => {
    const text =
      typeof one === "string" ? await prompts.ofPieces([one]) : prompts.ofTokens(checkedTokens("input", one, model));
    if (text.tokens.length > promptTokens) throw promptTooLong(`${text.tokens.length} tokens`, promptTokens);
    return text;
  });
  return Promise.all(texts);
}

/** The bytes of a vector's floats, little endian. */
function base64(vector: Float32Array): string {
  const bytes = Buffer.alloc(vector.length * 4);
  vector.forEach((value, i) => bytes.writeFloatLE(value, i * 4));
  return bytes.toString("base64");
}
