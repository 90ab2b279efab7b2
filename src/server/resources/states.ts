// /v1/states: what the model has read, as something that clients make, keep, hand out, and begin requests with.

import * as v from "valibot";
import { StateError } from "../../errors.js";
import { savedStateSize } from "../../generation/state-file.js";
import { conversationFields, conversationPrompt } from "../chat-messages.js";
import { invalidField } from "../errors.js";
import { cachedTokensOf, tokensOf } from "../inference.js";
import type { ReadPrompt } from "../prompt-reader.js";
import type { Prompt, PromptStart } from "../prompts.js";
import { type Call, type Route, withBody, withBytes } from "../route.js";
import { type Described, optional, parseBody, text, wholeNumber } from "../schema.js";
import type { Services } from "../services.js";
import type { NewObject } from "../shelf.js";
import { startOf, stateField } from "../starting-state.js";
import type { ObjectHead } from "../storage/stored-objects.js";
import { checkedTokens } from "../token-limit.js";

const maxName = 200;
/** About 34 years. */
const maxSeconds = 2 ** 30;

const labelFields = {
  name: optional(v.pipe(v.string(), v.minLength(1), v.maxLength(maxName))),
  ttl_seconds: optional(wholeNumber(1, maxSeconds)),
};
const forkBody = v.object(labelFields);
const body = v.object({
  model: optional(v.string()),
  prompt: optional(v.union([text(), v.pipe(v.array(wholeNumber(0)), v.minLength(1))])),
  messages: optional(conversationFields.messages),
  ...stateField,
  ...labelFields,
});
type Body = v.InferOutput<typeof body>;

/** The query of an upload: the fields of a label as texts. */
const uploadQuery = v.object({
  name: labelFields.name,
  ttl_seconds: optional(
    v.pipe(
      v.string(),
      v.regex(/^\d{1,10}$/, "a number of seconds"),
      v.transform(Number),
      v.minValue(1),
      v.maxValue(maxSeconds),
    ),
  ),
});

const stateFields = {
  id: v.string(),
  object: v.literal("state"),
  created_at: wholeNumber(0),
  expires_at: v.nullable(wholeNumber(0)),
  name: v.nullable(v.string()),
  model: v.string(),
  tokens: wholeNumber(0),
  bytes: wholeNumber(0),
};
const stateAnswer = v.strictObject(stateFields);
const madeAnswer = v.strictObject({
  ...stateFields,
  usage: v.strictObject({
    prompt_tokens: wholeNumber(0),
    total_tokens: wholeNumber(0),
    prompt_tokens_details: v.strictObject({ cached_tokens: wholeNumber(0) }),
  }),
});
const listAnswer = v.strictObject({
  object: v.literal("list"),
  data: v.array(stateAnswer),
  has_more: v.literal(false),
});
const deletedAnswer = v.strictObject({
  id: v.string(),
  object: v.literal("state.deleted"),
  deleted: v.literal(true),
});

export function states(services: Services): Route[] {
  const { model, served, states: shelf } = services;
  const { vocabulary, stateBytes } = model.info;
  const largest = savedStateSize(stateBytes / 4, vocabulary);
  const answer = (head: ObjectHead) => Response.json(stateOf(head, served.id));
  const keep = async (object: NewObject) => {
    const { head, stored } = await shelf.add(object);
    await stored;
    return head;
  };
  return [
    withBody({
      method: "post",
      path: "/v1/states",
      summary: "Make a state of what the model has read",
      body,
      answer: madeAnswer,
      handle: async (call) => {
        served.check(call.body.model);
        const { head, usage } = await make(services, call, keep);
        const made: Described<typeof madeAnswer> = { ...stateOf(head, served.id), usage };
        return Response.json(made);
      },
    }),
    withBytes({
      method: "post",
      path: "/v1/states/upload",
      summary: "Keep a state that was saved",
      maxBytes: largest,
      queryNames: ["name", "ttl_seconds"],
      answer: stateAnswer,
      handle: async ({ body: bytes, owner, query }) => {
        const { name, ttl_seconds: seconds } = parseBody(uploadQuery, query);
        return answer(await keep({ owner, snapshot: uploaded(services, bytes), content: null, name, seconds }));
      },
    }),
    {
      method: "get",
      path: "/v1/states",
      summary: "List states",
      answer: listAnswer,
      handle: async ({ owner }) => {
        const heads = await shelf.list(owner);
        return Response.json({
          object: "list",
          data: heads.map((head) => stateOf(head, served.id)),
          has_more: false,
        });
      },
    },
    {
      method: "get",
      path: "/v1/states/:id",
      summary: "Describe a state",
      answer: stateAnswer,
      handle: async ({ owner, params }) => answer((await shelf.open(owner, params["id"] ?? "")).head),
    },
    {
      method: "get",
      path: "/v1/states/:id/content",
      summary: "Download a state, as rwkv chat and the library save it",
      contentTypes: ["application/octet-stream"],
      handle: async ({ owner, params }) => {
        const { head, snapshot } = await shelf.open(owner, params["id"] ?? "");
        return new Response(snapshot.save() as Uint8Array<ArrayBuffer>, {
          headers: {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": `attachment; filename="${head.id}.rwkvstate"`,
          },
        });
      },
    },
    withBody({
      method: "post",
      path: "/v1/states/:id/fork",
      summary: "Make a state of its own of a state",
      body: forkBody,
      answer: stateAnswer,
      handle: async ({ owner, params, body: { name, ttl_seconds: seconds } }) => {
        const { head, snapshot } = await shelf.open(owner, params["id"] ?? "");
        return answer(await keep({ owner, snapshot, content: null, name, seconds, root: head.root }));
      },
    }),
    {
      method: "delete",
      path: "/v1/states/:id",
      summary: "Delete a state",
      answer: deletedAnswer,
      handle: async ({ owner, params }) => {
        const id = params["id"] ?? "";
        await shelf.delete(owner, id);
        return Response.json({ id, object: "state.deleted", deleted: true });
      },
    },
  ];
}

/** Reads what a request says into a state, and keeps it. */
async function make(
  services: Services,
  { body, owner, signal, note }: Call<Body>,
  keep: (object: NewObject) => Promise<ObjectHead>,
) {
  const { inference } = services;
  const start = await startOf(services, owner, body.state);
  const prompt = await promptOf(body, start, services);
  const { name, ttl_seconds: seconds } = body;
  return inference.read({ owner, prompts: [prompt], places: 1, signal }, async (read) => {
    const { snapshot } = read[0] as ReadPrompt;
    const [promptTokens, cachedTokens] = [tokensOf([prompt]), cachedTokensOf(read)];
    note({ promptTokens, cachedTokens });
    const usage = {
      prompt_tokens: promptTokens,
      total_tokens: promptTokens,
      prompt_tokens_details: { cached_tokens: cachedTokens },
    };
    return { head: await keep({ owner, snapshot, content: null, name, seconds }), usage };
  });
}

/** What a state is to have read. A conversation is read up to where the next message begins. */
async function promptOf(body: Body, start: PromptStart | undefined, services: Services): Promise<Prompt> {
  const { prompts, model } = services;
  const { prompt, messages } = body;
  if (prompt !== undefined && messages) throw invalidField("prompt", "expected either a prompt or messages");
  if (messages) {
    const { pieces } = conversationPrompt({ messages }, services, start);
    return prompts.ofPieces(pieces.slice(0, -1), start);
  }
  if (typeof prompt === "string") return prompts.ofPieces([prompt], start);
  if (prompt) return prompts.ofTokens(checkedTokens("prompt", prompt, model), start);
  throw invalidField("prompt", "expected a prompt or messages (a copy of a state is made at /v1/states/{id}/fork)");
}

/** @throws ApiError for bytes that are no state of this model */
function uploaded({ model }: Services, bytes: Uint8Array) {
  try {
    return model.snapshot(bytes);
  } catch (error) {
    if (error instanceof StateError) throw invalidField("body", error.message);
    throw error;
  }
}

function stateOf(
  { id, created, expires, name, tokens, bytes }: ObjectHead,
  model: string,
): Described<typeof stateAnswer> {
  return {
    id,
    object: "state",
    created_at: Math.floor(created / 1000),
    expires_at: expires === undefined ? null : Math.floor(expires / 1000),
    name: name ?? null,
    model,
    tokens,
    bytes,
  };
}
