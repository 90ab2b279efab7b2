// The server's description of its API, held to what the server does: every answer of every route, whole and streamed, is what
// /openapi.json says, with no more fields than it says; and the answers of OpenAI's routes are what OpenAI publishes, too.

import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openaiSchemas } from "./openai-schemas.js";
import { type Served, served } from "./served.js";

interface Operation {
  readonly responses: Readonly<Record<string, { readonly content: Readonly<Record<string, { schema: object }>> }>>;
}

let tales: Served;
let thinking: Served;
let operations: Map<string, Operation>;
beforeAll(async () => {
  tales = await served({ aliases: ["gpt-4o"] });
  thinking = await served({ format: "g1" });
  const description = await (await fetch(`${tales.url}/openapi.json`)).json();
  for (const [name, schema] of Object.entries(description.components.schemas as Record<string, object>)) {
    ajv.addSchema(schema, `#/components/schemas/${name}`);
  }
  operations = new Map(
    Object.entries(description.paths as Record<string, Record<string, Operation>>).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => [`${method.toUpperCase()} ${path}`, operation] as const),
    ),
  );
});
afterAll(async () => {
  await tales.close();
  await thinking.close();
});

const ajv = new Ajv2020({ strict: true, allowUnionTypes: true, validateFormats: false });
const validators = new Map<object, ValidateFunction>();

/** What answers were checked: routes with types of contents, and with "error" for those that are errors. */
const checked = new Set<string>();

/** Checks a value; where `strictly`, that it would not be valid with a further field anywhere. */
function check(schema: object, value: unknown, what: string, strictly = false): void {
  const validate = validators.get(schema) ?? ajv.compile(schema);
  validators.set(schema, validate);
  validate(value);
  expect(validate.errors, `${what}: ${JSON.stringify(value)}`).toBeNull();
  if (!strictly) return;
  for (const [path, object] of objectsIn(value)) {
    if (openPlaces.test(path)) continue;
    Object.assign(object, { further: {} });
    expect(validate(value), `${what} has a field more in ${path}`).toBe(false);
    delete (object as { further?: unknown }).further;
  }
}

/** What clients say themselves, and a description of the API. */
const openPlaces = /\.(schema|parameters|input)\b|^\.(paths|components)\b/;

function* objectsIn(value: unknown, path = ""): Generator<[path: string, object: object]> {
  if (typeof value !== "object" || value === null) return;
  if (!Array.isArray(value)) yield [path, value];
  for (const [key, one] of Object.entries(value)) yield* objectsIn(one, `${path}.${key}`);
}

/** Sends a request to a route of the description, and checks the answer against it. */
async function call(
  route: string,
  { body, id = "", query = "", server = tales }: { body?: unknown; id?: string; query?: string; server?: Served } = {},
) {
  const { responses } = operations.get(route) ?? {};
  if (!responses) throw new Error(`${route} is not in the description`);
  const [method = "", path = ""] = route.split(" ");
  const response = await fetch(server.url + path.replace("{id}", id) + query, {
    method,
    ...(body instanceof Uint8Array
      ? { headers: { "Content-Type": "application/octet-stream" }, body: body as Uint8Array<ArrayBuffer> }
      : body !== undefined && { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }),
  });
  const { status } = response;
  const [type = ""] = response.headers.get("content-type")!.split(";");
  const said = responses[status === 200 ? "200" : `${Math.floor(status / 100)}XX`]?.content[type];
  if (!said) throw new Error(`${route}: ${status} with ${type} is not in the description`);
  checked.add(status === 200 ? `${route} ${type}` : `${route} error`);
  const what = `${route} ${status}`;
  if (type === "text/event-stream") {
    const events = eventsOf(await response.text());
    for (const event of events) check(said.schema, event, what, true);
    return { status, answer: undefined, events };
  }
  const answer = type === "application/json" ? await response.json() : new Uint8Array(await response.arrayBuffer());
  if (type === "application/json") check(said.schema, answer, what, true);
  return { status, answer, events: [] as ReturnType<typeof eventsOf> };
}

/** The data of events as OpenAI's and Anthropic's clients read them. */
function eventsOf(text: string) {
  const blocks = text
    .split("\n\n")
    .filter((block) => block !== "" && !block.startsWith(":") && !block.includes("[DONE]"));
  return blocks.map((block) => {
    const [, name, data] = /^(?:event: (.*)\n)?data: (.*)$/.exec(block)!;
    const event = JSON.parse(data!);
    if (name !== undefined) expect(event.type).toBe(name);
    return event;
  });
}

/** What a request streams. */
const streamed = async (route: string, body: object, server = tales) =>
  (await call(route, { body: { ...body, stream: true }, server })).events;

/** Checks that an answer is what OpenAI publishes. */
const isPublished = (name: keyof typeof openaiSchemas, value: unknown) => check(openaiSchemas[name], value, name);

const messages = [{ role: "user", content: "What is the weather in Rome?" }];
const parameters = { type: "object", properties: { city: { enum: ["Rome"] } }, required: ["city"] };
const tool = { type: "function", function: { name: "get_weather", description: "Weather", parameters } };
const usual = { max_tokens: 12, seed: 1, temperature: 1 };

describe("each route answers what the description says", () => {
  test("chat completions", async () => {
    const route = "POST /v1/chat/completions";
    const bodies: [body: object, server?: Served][] = [
      [{ n: 2, logprobs: true, top_logprobs: 2, stream_options: { include_usage: true } }],
      [{ response_format: { type: "json_object" } }],
      [{ tools: [tool], tool_choice: "required", max_tokens: 400 }],
      [{}, thinking],
    ];
    for (const [more, server] of bodies) {
      const body = { ...usual, messages, ...more };
      const { answer } = await call(route, { body, ...(server && { server }) });
      isPublished("chat", answer);
      const { stream_options: _, ...whole } = body as { stream_options?: unknown };
      const chunks = [...(await streamed(route, whole, server)), ...(await streamed(route, body, server))];
      for (const chunk of chunks) isPublished("chunk", chunk);
    }
    isPublished("error", (await call(route, { body: { messages: [] } })).answer);
  });

  test("completions", async () => {
    const route = "POST /v1/completions";
    const bodies = [
      { prompt: "Once" },
      { prompt: ["Once", "The"], n: 2, logprobs: 2, echo: true, stream_options: { include_usage: true } },
      { prompt: [1, 2], max_tokens: 0, echo: true },
    ];
    for (const more of bodies) {
      const { answer } = await call(route, { body: { ...usual, ...more } });
      isPublished("text", answer);
      const events = await streamed(route, { ...usual, ...more });
      // OpenAI publishes one schema for both, in which the end is there; and what it streams has none until then.
      for (const event of events.filter(({ choices: [choice] }) => choice?.finish_reason)) {
        isPublished("text", { ...event, usage: event.usage ?? answer.usage });
      }
    }
    isPublished("error", (await call(route, { body: {} })).answer);
  });

  test("responses", async () => {
    const route = "POST /v1/responses";
    const own = { ...usual, max_tokens: undefined, max_output_tokens: 12 };
    const own400 = { ...own, max_output_tokens: 400 };
    const ownTool = { type: "function", name: "get_weather", description: null, parameters };
    const format = { type: "json_schema", name: "place", schema: parameters, strict: true };
    const bodies: [body: object, server?: Served][] = [
      [{ ...own, input: "Who?", metadata: { a: "b" }, user: "me", instructions: "Be short.", top_logprobs: 1 }],
      [{ ...own400, input: "Rome?", tools: [ownTool], tool_choice: "required" }],
      [{ ...own400, input: "Rome?", tools: [ownTool], tool_choice: { type: "function", name: "get_weather" } }],
      [{ ...own400, input: "Rome?", text: { format } }],
      [{ ...own, input: "Why?", reasoning: { effort: "low" } }, thinking],
    ];
    for (const [body, server] of bodies) {
      isPublished("response", (await call(route, { body, ...(server && { server }) })).answer);
      const events = await streamed(route, body, server);
      for (const event of events) isPublished("responseEvent", event);
      expect(events[0].type).toBe("response.created");
    }
    const items = [
      { role: "user", content: [{ type: "input_text", text: "Rome?" }] },
      { role: "assistant", content: [{ type: "refusal", refusal: "No." }] },
      { type: "reasoning", summary: [] },
      { type: "function_call", call_id: "call_1", name: "get_weather", arguments: "{}" },
      { type: "function_call_output", call_id: "call_1", output: "Rain" },
      { type: "function_call", call_id: "call_2", name: "get_weather", arguments: "{}" },
      { type: "function_call_output", call_id: "call_2", output: [{ type: "input_text", text: "Sun" }] },
    ];
    const { answer } = await call(route, { body: { ...own, input: items, tools: [ownTool] } });
    const { id } = answer;
    expect((await call("GET /v1/responses/{id}", { id })).answer).toEqual(answer);
    const listed = await call("GET /v1/responses/{id}/input_items", { id });
    isPublished("inputItems", listed.answer);
    expect(listed.answer.data.length).toBe(items.length);
    expect((await call("POST /v1/responses/{id}/cancel", { id })).status).toBe(400);
    expect((await call("DELETE /v1/responses/{id}", { id })).status).toBe(200);
    for (const gone of ["GET /v1/responses/{id}", "GET /v1/responses/{id}/input_items", "DELETE /v1/responses/{id}"]) {
      expect((await call(gone, { id })).status).toBe(404);
    }
    expect((await call(route, { body: {} })).status).toBe(400);
  });

  test("messages", async () => {
    const route = "POST /v1/messages";
    const ownTool = { name: "get_weather", input_schema: parameters };
    const bodies: [body: object, server?: Served][] = [
      [{}],
      [{ stop_sequences: ["e"] }],
      [{ tools: [ownTool], tool_choice: { type: "any" }, max_tokens: 400 }],
      [{ thinking: { type: "enabled", budget_tokens: 2000 } }, thinking],
    ];
    for (const [more, server] of bodies) {
      const body = { ...usual, messages, ...more };
      await call(route, { body, ...(server && { server }) });
      expect((await streamed(route, body, server)).at(-1).type).toBe("message_stop");
    }
    expect((await call(route, { body: { messages } })).answer.type).toBe("error");
    await call("POST /v1/messages/count_tokens", { body: { messages } });
    expect((await call("POST /v1/messages/count_tokens", { body: {} })).status).toBe(400);
  });

  test("states and choices", async () => {
    const { answer: made } = await call("POST /v1/states", {
      body: { prompt: "Once", name: "first", ttl_seconds: 99 },
    });
    const { id } = made;
    const { answer: content } = await call("GET /v1/states/{id}/content", { id });
    await call("POST /v1/states/upload", { body: content, query: "?name=copy" });
    await call("POST /v1/states/{id}/fork", { id, body: {} });
    await call("GET /v1/states/{id}", { id });
    expect((await call("GET /v1/states")).answer.data.length).toBe(3);
    await call("DELETE /v1/states/{id}", { id });
    for (const route of [...operations.keys()].filter((one) => /\/v1\/states\//.test(one) && !one.includes("upload"))) {
      expect((await call(route, { id, ...(route.startsWith("POST") && { body: {} }) })).status).toBe(404);
    }
    expect((await call("POST /v1/states/upload", { body: Uint8Array.of(1) })).status).toBe(400);
    expect((await call("POST /v1/states", { body: {} })).status).toBe(400);
    const choices = ["king", "wolf"];
    await call("POST /v1/choose", { body: { prompt: "The", choices } });
    await call("POST /v1/choose", { body: { messages, choices, calibrate: true } });
    expect((await call("POST /v1/choose", { body: {} })).status).toBe(400);
  });

  test("embeddings, models, tokens", async () => {
    isPublished("embeddings", (await call("POST /v1/embeddings", { body: { input: ["a", "b"] } })).answer);
    await call("POST /v1/embeddings", { body: { input: "a", encoding_format: "base64", dimensions: 3 } });
    expect((await call("POST /v1/embeddings", { body: {} })).status).toBe(400);
    isPublished("models", (await call("GET /v1/models")).answer);
    await call("GET /v1/models/{id}", { id: "gpt-4o" });
    expect((await call("GET /v1/models/{id}", { id: "other" })).status).toBe(404);
    for (const with_pieces of [true, false])
      await call("POST /tokenize", { body: { content: "A wolf, 狼", with_pieces } });
    await call("POST /detokenize", { body: { tokens: [1, 2] } });
    expect((await call("POST /tokenize", { body: {} })).status).toBe(400);
    expect((await call("POST /detokenize", { body: {} })).status).toBe(400);
  });

  test("those for people and for whoever watches the server", async () => {
    for (const [route, { responses }] of operations) {
      // Routes for people are files of a page, which may be several.
      const types = Object.keys(responses["200"]?.content ?? {});
      const isOfPage = types.every((type) => type.startsWith("text/") && type !== "text/event-stream");
      if (isOfPage && types.length > 0 && !route.includes("{")) await call(route);
    }
    for (const route of ["GET /health", "GET /ready", "GET /openapi.json"]) await call(route);
  });

  test("and there is no other", () => {
    const told = [...operations].flatMap(([route, { responses }]) =>
      Object.keys(responses["200"]?.content ?? { error: {} }).map((type) => `${route} ${type}`),
    );
    expect(told.filter((one) => !checked.has(one))).toEqual([]);
  });
});
