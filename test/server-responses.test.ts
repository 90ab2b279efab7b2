// /v1/responses with OpenAI's client: responses that go on from the state of the one before.

import OpenAI from "openai";
import { zodResponsesFunction } from "openai/helpers/zod";
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import { z } from "zod";
import { nextTurn } from "#rwkv/server/next-turn";
import { type Served, served } from "./served.js";

let tales: Served;
beforeAll(async () => {
  tales = await served();
});
afterAll(() => tales.close());

/** More than OpenAI's own fields: what the server takes beside them. */
const sampling = { model: "tales", top_p: 0.9, seed: 4, presence_penalty: 0, frequency_penalty: 0 };
const usual = { ...sampling, input: "Tell me of the king", max_output_tokens: 25 };
const seeds = [1, 2, 3, 4, 5, 6, 7, 8];

async function temporary(...args: Parameters<typeof served>): Promise<Served> {
  const one = await served(...args);
  onTestFinished(() => one.close());
  return one;
}

test("a stream says what the whole response does, in OpenAI's events", async () => {
  for (const seed of seeds.slice(0, 3)) {
    const whole = await tales.client.responses.create({ ...usual, seed } as typeof usual);
    const stream = tales.client.responses.stream({ ...usual, seed } as typeof usual);
    const types: string[] = [];
    const numbers: number[] = [];
    let text = "";
    for await (const event of stream) {
      types.push(event.type);
      numbers.push(event.sequence_number);
      if (event.type === "response.output_text.delta") text += event.delta;
    }
    const last = await stream.finalResponse();
    expect(text).toBe(whole.output_text);
    expect(last.output_text).toBe(whole.output_text);
    expect(last.status).toBe(whole.status);
    expect(numbers).toEqual(numbers.map((_, i) => i));
    expect(types.filter((type, i) => type !== "response.output_text.delta" || types[i - 1] !== type)).toEqual([
      "response.created",
      "response.in_progress",
      "response.output_item.added",
      "response.content_part.added",
      ...(text === "" ? [] : ["response.output_text.delta"]),
      "response.output_text.done",
      "response.content_part.done",
      "response.output_item.done",
      `response.${whole.status}`,
    ]);
    expect(last.usage?.input_tokens).toBe(whole.usage?.input_tokens);
  }
});

test("the next response reads its own input, and nothing again", async () => {
  for (const seed of seeds) {
    const first = await tales.client.responses.create({ ...usual, seed } as typeof usual);
    const before = tales.model.scheduler.rows;
    const request = {
      ...sampling,
      seed,
      input: "And the queen?",
      previous_response_id: first.id,
      max_output_tokens: 1,
    };
    const next = await tales.client.responses.create(request);
    const { input_tokens: tokens, input_tokens_details: details } = next.usage!;
    const fresh = tokens - details.cached_tokens;
    expect(tales.model.scheduler.rows - before).toBeLessThanOrEqual(fresh + 1); // and the token that was kept back
    expect(fresh).toBeLessThan(tales.model.tokenizer.encode("\n\nUser: And the queen?\n\nBot:").length + 6);
    expect(details.cached_tokens).toBeGreaterThan(first.usage!.input_tokens - 1);
    expect(next.previous_response_id).toBe(first.id);
  }
});

test("a conversation of responses is the one that a session of the library has, to the bit", async () => {
  const forgetting = await temporary({ stateCacheBytes: 0 });
  const { model } = tales;
  const options = { temperature: 1, topP: 0.9, presencePenalty: 0, frequencyPenalty: 0, maxTokens: 25 };
  for (const seed of seeds.slice(0, 4)) {
    const conversation = async ({ client }: Served) => {
      const texts: string[] = [];
      let previous: string | undefined;
      for (const input of ["Tell me of the king", "And then?", "Who was it?"]) {
        const more = { input, max_output_tokens: 25, previous_response_id: previous, temperature: 1 };
        const response = await client.responses.create({ ...sampling, seed, ...more } as typeof usual);
        texts.push(response.output_text);
        previous = response.id;
      }
      return texts;
    };
    const texts = await conversation(tales);
    expect(await conversation(forgetting)).toEqual(texts);

    // The first answer, and where it leaves the session: it is read on from there with the text that is missing.
    const session = model.session();
    const { pieces, stop } = await import("rwkv").then(({ chatPrompt }) =>
      chatPrompt(model, [{ role: "user", content: "Tell me of the king" }]),
    );
    for (const piece of pieces) await session.read(piece);
    const before = await session.snapshot();
    const result = await session.generate({ ...options, seed, stop }).result;
    const written = { before, after: await session.snapshot(), text: result.text, tokens: result.tokens };
    const { snapshot, rest } = nextTurn(written, "\n\n", model.tokenizer);
    const next = model.session(snapshot);
    for (const piece of [rest, "User: And then?\n\n", "Bot:"]) await next.read(piece);
    const answer = await next.generate({ ...options, seed, stop }).text();
    expect([result.text, answer].map((text) => text.trimStart())).toEqual(
      texts.slice(0, 2).map((text) => text.trimStart()),
    );
    await Promise.all([session.dispose(), next.dispose()]);
  }
});

describe("the place where a conversation goes on", () => {
  const { before, after, withoutLast } = (() => {
    const withoutLast = { name: "without the last" };
    return {
      before: { name: "before" },
      after: { name: "after", withoutPendingToken: () => withoutLast },
      withoutLast,
    };
  })() as never as Record<"before" | "after" | "withoutLast", Parameters<typeof nextTurn>[0]["after"]>;
  const words = ["Yes", ".", "\n", "\n\n", "\nUser", ":", " no", "\n\nUser:"];
  const tokenizer = { decode: (ids: readonly number[]) => ids.map((id) => words[id]).join("") } as never;

  test.each([
    ["ended by a token, or cut off", [0, 1], "Yes.", after, "\n\n"],
    ["ended by what stands there", [0, 1, 3], "Yes.", after, ""],
    ["ended by a part of it", [0, 1, 2], "Yes.", after, "\n"],
    ["ended by more than that", [0, 1, 7], "Yes.", withoutLast, "\n\n"],
    ["ended by another text in one token", [0, 1, 6], "Yes.", withoutLast, "\n\n"],
    ["ended by another text in several", [0, 1, 4, 5], "Yes.", before, "Yes.\n\n"],
    ["over before it began", [6], "", before, "\n\n"],
    ["empty", [], "", after, "\n\n"],
  ])("after an answer that was %s", (_, tokens, text, snapshot, rest) => {
    expect(nextTurn({ before, after, text, tokens }, "\n\n", tokenizer)).toEqual({ snapshot, rest });
  });
});

test("responses are given again, told what they answered, and deleted", async () => {
  const input = [
    { role: "user" as const, content: [{ type: "input_text" as const, text: "One" }] },
    { role: "assistant" as const, content: "Two" },
    { role: "user" as const, content: "Three" },
  ];
  const made = await tales.client.responses.create({
    ...usual,
    input,
    metadata: { tale: "first" },
    instructions: "Be brief.",
  } as never as typeof usual);
  const again = await tales.client.responses.retrieve(made.id);
  expect(again).toEqual(made);
  expect(again.metadata).toEqual({ tale: "first" });
  const items = [];
  for await (const item of tales.client.responses.inputItems.list(made.id, { limit: 2, order: "asc" }))
    items.push(item);
  expect(items.map((item) => (item as { content: { text: string }[] }).content[0]!.text)).toEqual([
    "One",
    "Two",
    "Three",
  ]);
  await expect(tales.client.responses.cancel(made.id)).rejects.toThrow("in the background");
  await tales.client.responses.delete(made.id);
  for (const call of [
    () => tales.client.responses.retrieve(made.id),
    () => tales.client.responses.delete(made.id),
    () => tales.client.responses.create({ ...usual, previous_response_id: made.id } as typeof usual),
  ]) {
    await expect(call()).rejects.toBeInstanceOf(OpenAI.NotFoundError);
  }
});

test("instructions, items and a plain conversation are the same prompt", async () => {
  const { client } = tales;
  const told = { role: "system" as const, content: "A tale of a fox." };
  const asked = { role: "user" as const, content: "Who is it?" };
  const usage = async (more: object) => {
    const response = await client.responses.create({ ...usual, max_output_tokens: 12, ...more } as typeof usual);
    return [response.output_text, response.usage!.input_tokens];
  };
  const { choices, usage: counted } = await client.chat.completions.create({
    ...sampling,
    messages: [told, asked],
    max_tokens: 12,
  });
  const expected = [choices[0]!.message.content, counted!.prompt_tokens];
  expect(await usage({ instructions: told.content, input: asked.content })).toEqual(expected);
  expect(await usage({ input: [told, asked] })).toEqual(expected);
});

test("what is not to be stored is not", async () => {
  const one = await temporary({ limits: { keptResponses: 2 } });
  const make = (more = {}) => one.client.responses.create({ ...usual, max_output_tokens: 2, ...more } as typeof usual);
  const { id } = await make({ store: false });
  await expect(one.client.responses.retrieve(id)).rejects.toBeInstanceOf(OpenAI.NotFoundError);
  const ids = [];
  for (let i = 0; i < 3; i++) ids.push((await make()).id);
  await expect(one.client.responses.retrieve(ids[0]!)).rejects.toBeInstanceOf(OpenAI.NotFoundError);
  expect((await one.metrics()).get("rwkv_kept_responses")).toBe(2);
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 86_400_001 });
  onTestFinished(() => void vi.useRealTimers());
  await expect(one.client.responses.retrieve(ids[2]!)).rejects.toBeInstanceOf(OpenAI.NotFoundError);
  // Nothing else may think that it is tomorrow: it would sweep what others are compiling.
  vi.useRealTimers();
  const never = await temporary({ limits: { keptResponses: 0 } });
  const unkept = await never.client.responses.create({ ...usual, max_output_tokens: 2 } as typeof usual);
  expect(unkept).toMatchObject({ store: false });
});

test("what is asked for in a form of this server's own has it", async () => {
  const forms = { grammar: 'root ::= "grey"', regex: "gr.y", choice: ["grey", "gray"] };
  for (const [name, form] of Object.entries(forms)) {
    const asked = { ...usual, ...{ [name]: form } } as typeof usual;
    expect((await tales.client.responses.create(asked)).output_text).toMatch(/^gr.y$/);
  }
});

test("a response belongs to its key", async () => {
  const one = await temporary({ apiKeys: ["mine", "yours"] }, { key: "mine" });
  const { id } = await one.client.responses.create({ ...usual, max_output_tokens: 2 } as typeof usual);
  const other = one.client.withOptions({ apiKey: "yours" });
  await expect(other.responses.retrieve(id)).rejects.toBeInstanceOf(OpenAI.NotFoundError);
  await expect(other.responses.create({ ...usual, previous_response_id: id } as typeof usual)).rejects.toMatchObject({
    status: 404,
    param: "previous_response_id",
  });
  expect((await one.client.responses.retrieve(id)).id).toBe(id);
});

test("thoughts are items of their own, and stay in the state", async () => {
  const one = await temporary({ format: "g1" });
  const thought = await one.client.responses.create({ ...usual, seed: 1 } as typeof usual);
  expect(thought.output.map(({ type }) => type)).toEqual(["reasoning"]); // this model never ends its thought
  expect(thought).toMatchObject({ status: "incomplete", incomplete_details: { reason: "max_output_tokens" } });
  expect(thought.usage!.output_tokens_details.reasoning_tokens).toBeGreaterThan(10);
  const types = new Set<string>();
  for await (const { type } of one.client.responses.stream({ ...usual, seed: 1 } as typeof usual)) types.add(type);
  expect([...types]).toEqual(expect.arrayContaining(["response.reasoning_text.delta", "response.incomplete"]));
  const next = await one.client.responses.create({ ...usual, previous_response_id: thought.id } as typeof usual);
  expect(next.usage!.input_tokens_details.cached_tokens).toBeGreaterThanOrEqual(thought.usage!.total_tokens - 1);
  const direct = { ...usual, reasoning: { effort: "none" as const }, logit_bias: { 0: -100 } };
  expect((await one.client.responses.create(direct as typeof usual)).output.map(({ type }) => type)).toEqual([
    "message",
  ]);
});

test("log-probabilities come with the text that is asked for with them", async () => {
  const include = ["message.output_text.logprobs" as const];
  const response = await tales.client.responses.create({ ...usual, seed: 1, include, top_logprobs: 2 } as typeof usual);
  const [item] = response.output;
  const [part] = item?.type === "message" ? item.content : [];
  const logprobs = part?.type === "output_text" ? part.logprobs! : [];
  expect(logprobs.length).toBeGreaterThan(0);
  expect(logprobs.every(({ top_logprobs: top }) => top.length === 2)).toBe(true);
});

describe("wrong requests", () => {
  test.each([
    [{}, 400, "input", "expected"],
    [{ input: "" }, 400, "input", "expected"],
    [{ input: [] }, 400, "input", "expected"],
    [{ input: [{ type: "reasoning" }] }, 400, "input", "expected a message"],
    [{ input: [{ role: "king", content: "a" }] }, 400, "input[0].role", '"king"'],
    [{ input: [{ role: "user", content: [{ type: "input_image" }] }] }, 400, "input[0].content[0].type", "input_image"],
    [{ input: "a", background: true }, 400, "background", "not supported"],
    [{ input: "a", conversation: "conv_1" }, 400, "conversation", "previous_response_id"],
    [{ input: "a", prompt: { id: "pmpt_1" } }, 400, "prompt", "not supported"],
    [{ input: "a", grammar: "root ::= root" }, 400, "grammar", "no text can follow"],
    [{ input: "a", regex: "a", text: { format: { type: "json_object" } } }, 400, "regex", "together with"],
    [{ input: "a", tools: [{ type: "web_search" }] }, 400, "tools[0].type", '"function"'],
    [{ input: "a", tools: [], tool_choice: "required" }, 400, "tool_choice", "tools"],
    [{ input: "a", max_output_tokens: 1e6 }, 400, "max_output_tokens", "at most"],
    [{ input: "a", metadata: { a: 1 } }, 400, "metadata.a", "expected"],
    [{ input: "a", previous_response_id: "resp_1" }, 404, "previous_response_id", "there is no response"],
    [{ input: "a", previous_response_id: "resp_1", state: "x" }, 400, "state", "beside previous_response_id"],
    [{ input: "a", stream: true, temperature: 9 }, 400, "temperature", "expected"],
  ])("%j", async (body, status, param, message) => {
    const answer = await tales.post("/v1/responses", body);
    const { error } = await answer.json();
    expect([answer.status, error.param, error.message]).toEqual([status, param, expect.stringContaining(message)]);
  });
});

test("a client that leaves a stream ends its response", async () => {
  const leaving = new AbortController();
  const stream = await tales.client.responses.create(
    { ...usual, max_output_tokens: 16_000, logit_bias: { 0: -100 }, stream: true } as typeof usual & { stream: true },
    { signal: leaving.signal },
  );
  for await (const { type } of stream) if (type === "response.created") break;
  leaving.abort();
  await vi.waitFor(async () => expect((await tales.metrics()).get("rwkv_texts_running")).toBe(0), { timeout: 30_000 });
});

describe("tools", () => {
  const sky = z.strictObject({ color: z.enum(["blue", "grey"]), clouds: z.int().min(0).max(8) });
  const tool = zodResponsesFunction({ name: "set_sky", description: "Sets the sky", parameters: sky });
  const asked = { ...usual, max_output_tokens: 300, temperature: 1, tools: [tool], tool_choice: "required" as const };
  const callsOf = ({ output }: { output: readonly { type: string }[] }) =>
    output.filter(({ type }) => type === "function_call") as OpenAI.Responses.ResponseFunctionToolCall[];

  test("are called, in the events of a stream as in the whole response", async () => {
    for (const seed of seeds.slice(0, 3)) {
      const whole = await tales.client.responses.parse({ ...asked, seed } as typeof asked);
      const calls = callsOf(whole);
      expect(calls.length).toBeGreaterThan(0);
      expect(whole.output.length).toBe(calls.length);
      // One that the length cuts off is none of them, unless its name was there.
      const cut = whole.status === "incomplete" ? 1 : 0;
      expect(calls.filter(({ status }) => status === "completed").length).toBeGreaterThanOrEqual(calls.length - cut);
      for (const call of calls.filter(({ status }) => status === "completed")) {
        expect(sky.safeParse(JSON.parse(call.arguments)).success).toBe(true);
        expect(call).toMatchObject({ name: "set_sky", call_id: expect.stringMatching(/^call_/) });
      }
      const stream = tales.client.responses.stream({ ...asked, seed } as typeof asked);
      const texts: string[] = [];
      const done: string[] = [];
      for await (const event of stream) {
        if (event.type === "response.function_call_arguments.delta") {
          texts[event.output_index] = (texts[event.output_index] ?? "") + event.delta;
        }
        if (event.type === "response.function_call_arguments.done") done.push(event.arguments);
      }
      const streamed = callsOf(await stream.finalResponse());
      for (const all of [texts, done, streamed.map((call) => call.arguments)]) {
        expect(all).toEqual(calls.map((call) => call.arguments));
      }
    }
  });

  test("are told to the model once in a conversation, and what they gave goes on from their calls", async () => {
    const first = await tales.client.responses.create({ ...asked, parallel_tool_calls: false });
    const [call] = callsOf(first);
    const output = { type: "function_call_output" as const, call_id: call!.call_id, output: '{"done":true}' };
    const more = { ...asked, input: [output], previous_response_id: first.id, max_output_tokens: 5 };
    const next = await tales.client.responses.create({ ...more, tool_choice: "auto" });
    const fresh = ({ usage }: typeof next) => usage!.input_tokens - usage!.input_tokens_details.cached_tokens;
    const other = zodResponsesFunction({ name: "set_sea", description: "Sets the sea", parameters: sky });
    const changed = await tales.client.responses.create({ ...more, tool_choice: "auto", tools: [tool, other] });
    expect(fresh(next)).toBeLessThan(60);
    expect(fresh(changed)).toBeGreaterThan(fresh(next) + 200);
    expect(next.tools).toHaveLength(1);
  });
});
