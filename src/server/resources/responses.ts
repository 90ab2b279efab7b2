// /v1/responses: OpenAI's Responses. A response is kept with the state of its conversation, and the next one goes on from there.

import { randomBytes } from "node:crypto";
import * as v from "valibot";
import { formatNamed } from "../../chat/chat-prompt.js";
import {
  deletedResponse,
  type InputItem,
  inputItemList,
  type ResponseEvent,
  type ResponseHead,
  type ResponseObject,
  response,
  responseEvent,
} from "../answer-schemas/response.js";
import { secondsSince1970, streamedAnswer, usageOf, wholeAnswer } from "../answers.js";
import { type Answers, type Beginning, startAnswers } from "../chat-answers.js";
import { ApiError, notSupported, toApiError } from "../errors.js";
import { inputItems } from "../input-items.js";
import { nextTurn } from "../next-turn.js";
import { ResponseWriter } from "../response-events.js";
import { answerRequestOf, checkSupported, type ResponseBody, responseBody } from "../response-input.js";
import { type Call, type Route, withBody } from "../route.js";
import { optional, parseBody } from "../schema.js";
import type { Services } from "../services.js";
import { startOf } from "../starting-state.js";
import { checkMaxTokens } from "../token-limit.js";

/** What is kept of a response beside its state. */
interface KeptResponse {
  readonly response: ResponseObject;
  readonly input: readonly InputItem[];
  /** What is to be read before the next message. */
  readonly rest: string;
  /** What stands for the tools that the model knows of. */
  readonly tools?: string | undefined;
}

const digits = (expected: string) => v.pipe(v.string(), v.regex(/^\d{1,3}$/, expected), v.transform(Number));
const listQuery = v.object({
  limit: optional(v.pipe(digits("a number from 1 to 100"), v.minValue(1), v.maxValue(100))),
  order: optional(v.picklist(["asc", "desc"])),
  after: optional(v.string()),
});

export function responses(services: Services): Route[] {
  const { responses: shelf } = services;
  const kept = async ({ owner, params }: Call<unknown>) =>
    (await shelf.open(owner, params["id"] ?? "")).content as KeptResponse;
  return [
    withBody({
      method: "post",
      path: "/v1/responses",
      summary: "Answer, and keep where the conversation goes on",
      operation: "chat",
      body: responseBody,
      answer: response,
      events: responseEvent,
      handle: (call) => respond(services, call),
    }),
    {
      method: "get",
      path: "/v1/responses/:id",
      summary: "Give a response again",
      answer: response,
      queryNames: ["stream"],
      handle: async (call) => {
        if (call.query["stream"] === "true")
          throw notSupported("stream", "is not supported for a response that is over");
        return Response.json((await kept(call)).response);
      },
    },
    {
      method: "get",
      path: "/v1/responses/:id/input_items",
      summary: "List what a response answered",
      queryNames: ["limit", "order", "after"],
      answer: inputItemList,
      handle: async (call) => Response.json(page((await kept(call)).input, call.query)),
    },
    {
      method: "post",
      path: "/v1/responses/:id/cancel",
      summary: "Refused: responses are not written in the background",
      handle: async (call) => {
        await kept(call);
        throw new ApiError(400, "only responses in the background can be cancelled, and this server writes none", {
          code: "invalid_request",
        });
      },
    },
    {
      method: "delete",
      path: "/v1/responses/:id",
      summary: "Delete a response",
      answer: deletedResponse,
      handle: async ({ owner, params }) => {
        const id = params["id"] ?? "";
        await shelf.delete(owner, id);
        return Response.json({ id, object: "response", deleted: true });
      },
    },
  ];
}

async function respond(services: Services, call: Call<ResponseBody>): Promise<Response> {
  const { body, owner, signal } = call;
  const { served, options, responses: shelf, model } = services;
  served.check(body.model);
  checkSupported(body);
  const hasLogprobs = body.include?.includes("message.output_text.logprobs") || body.top_logprobs !== undefined;
  const answers = await startAnswers(services, answerRequestOf(body), {
    owner,
    maxTokens: checkMaxTokens("max_output_tokens", body.max_output_tokens, options.limits.maxTokens),
    logProbabilities: hasLogprobs ? (body.top_logprobs ?? 0) : undefined,
    beginning: await beginningOf(services, owner, body),
    signal,
  });
  const { run, format, tools } = answers;
  const id = shelf.newId();
  const { keptResponses, keptResponseBytes } = options.limits;
  const store = body.store !== false && keptResponses > 0 && keptResponseBytes > model.info.stateBytes;
  const head = { ...headOf(id, body, answers), model: served.id, store };
  const writer = new ResponseWriter(head, newItemId);
  const keep = async (response: ResponseObject): Promise<boolean> => {
    const written = run.choices[0]?.written; // not where it was ended from outside
    if (!store || !written) return false;
    const next = nextTurn(written, formatNamed(format).separator, model.tokenizer);
    const content: KeptResponse = { response, input: inputItems(body, newItemId), rest: next.rest, tools };
    const seconds = options.limits.responseSeconds;
    const { stored } = await shelf.add({ owner, snapshot: next.snapshot, content, seconds }, id);
    // Whoever has the answer may go on from it at another server, so it is there first; or it says that it is not kept.
    return (
      !shelf.isShared ||
      stored.then(
        () => true,
        () => false,
      )
    );
  };
  const events = eventsOf(answers, writer, keep);
  if (!body.stream) return wholeAnswer(call, run, lastResponse(events));
  return streamedAnswer(call, run, withErrors(events, writer), options.limits, { areNamed: true, last: "" });
}

/** @throws ApiError for a previous response or a state that the owner does not have */
async function beginningOf(services: Services, owner: string, body: ResponseBody): Promise<Beginning> {
  const { previous_response_id: previous } = body;
  if (previous === undefined) return { start: await startOf(services, owner, body.state) };
  const { head, snapshot, content } = await services.responses.open(owner, previous, "previous_response_id");
  const { rest, tools } = content as KeptResponse;
  return { start: { root: head.root, snapshot }, rest, tools };
}

/** What is known of a response before it is written. */
function headOf(id: string, body: ResponseBody, { generation }: Answers): Omit<ResponseHead, "model" | "store"> {
  return {
    id,
    object: "response",
    created_at: secondsSince1970(),
    background: false,
    error: null,
    instructions: body.instructions ?? null,
    max_output_tokens: body.max_output_tokens ?? null,
    metadata: body.metadata ?? {},
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    previous_response_id: body.previous_response_id ?? null,
    reasoning: { effort: body.reasoning?.effort ?? null, summary: null },
    temperature: generation.temperature ?? null,
    text: { format: body.text?.format ?? { type: "text" } },
    tool_choice: body.tool_choice ?? "auto",
    tools: (body.tools ?? []).map((tool) => ({
      ...tool,
      parameters: tool.parameters ?? null,
      strict: tool.strict === true,
    })),
    top_logprobs: body.top_logprobs ?? 0,
    top_p: generation.topP ?? null,
    truncation: "disabled",
    user: body.user ?? null,
  };
}

/** @param keep keeps the response, and says whether it is kept; its last event follows, so that whoever has it can go on from it */
async function* eventsOf(
  { run, pieces, counts }: Answers,
  writer: ResponseWriter,
  keep: (response: ResponseObject) => Promise<boolean>,
): AsyncGenerator<ResponseEvent, void, void> {
  let status: "completed" | "incomplete" = "completed";
  yield* writer.begin();
  for await (const piece of pieces) {
    yield* writer.write(piece);
    if (piece.finishReason === "length") status = "incomplete";
  }
  yield* writer.end(status);
  const { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details } = usageOf(run);
  const response = writer.response(status, {
    ...(status === "completed"
      ? { completed_at: secondsSince1970() }
      : { incomplete_details: { reason: "max_output_tokens" } }),
    usage: {
      input_tokens: prompt_tokens,
      input_tokens_details: prompt_tokens_details,
      output_tokens: completion_tokens,
      output_tokens_details: { reasoning_tokens: counts.reasoning },
      total_tokens,
    },
  });
  const isKept = await keep(response);
  yield writer.event({ type: `response.${status}`, response: { ...response, store: response.store && isKept } });
}

async function lastResponse(events: AsyncGenerator<ResponseEvent, void, void>): Promise<object> {
  let last: object = {};
  for await (const event of events) if ("response" in event) last = event.response;
  return last;
}

/** Events that end with one of an error where something fails. */
async function* withErrors(
  events: AsyncGenerator<ResponseEvent, void, void>,
  writer: ResponseWriter,
): AsyncGenerator<ResponseEvent, void, void> {
  try {
    yield* events;
  } catch (error) {
    const { message, code, param } = toApiError(error).body.error;
    yield writer.event({ type: "error", code, message, param });
  }
}

/** Some of the items, as OpenAI's API pages them. */
function page(items: KeptResponse["input"], query: Readonly<Record<string, string>>) {
  const { limit = 20, order = "desc", after } = parseBody(listQuery, query);
  const all = order === "asc" ? items : items.toReversed();
  const from = after === undefined ? 0 : all.findIndex(({ id }) => id === after) + 1;
  const data = all.slice(from, from + limit);
  return {
    object: "list",
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: from + limit < all.length,
  };
}

function newItemId(prefix: string): string {
  return `${prefix}_${randomBytes(16).toString("hex")}`;
}
