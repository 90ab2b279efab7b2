// Anthropic's Messages API, with Anthropic's own client.

import Anthropic from "@anthropic-ai/sdk";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { type Served, served } from "./served.js";

let tales: Served;
let client: Anthropic;
const clientOf = ({ url }: Served, apiKey = "none") => new Anthropic({ baseURL: url, apiKey, maxRetries: 0 });
beforeAll(async () => {
  tales = await served();
  client = clientOf(tales);
});
afterAll(() => tales.close());

const ask = {
  model: "tales",
  max_tokens: 24,
  temperature: 1,
  system: "You tell tales.",
  messages: [{ role: "user" as const, content: "Tell me of a wolf" }],
};
const seeded = (seed: number) => ({ ...ask, seed }) as typeof ask; // seeds are this server's own
const tool: Anthropic.Tool = {
  name: "set_sky",
  description: "Sets the sky",
  input_schema: {
    type: "object",
    properties: { color: { enum: ["blue", "grey"] }, clouds: { type: "integer", minimum: 0, maximum: 8 } },
    required: ["color", "clouds"],
    additionalProperties: false,
  },
};

describe("a message", () => {
  test("is the same whole and as a stream, and has the text of the chat", async () => {
    for (const seed of [1, 2, 3]) {
      const whole = await client.messages.create(seeded(seed));
      const stream = client.messages.stream(seeded(seed));
      const events: string[] = [];
      for await (const { type } of stream) events.push(type);
      const streamed = await stream.finalMessage();
      expect(streamed.content).toEqual(whole.content);
      expect([streamed.stop_reason, streamed.usage.output_tokens]).toEqual([
        whole.stop_reason,
        whole.usage.output_tokens,
      ]);
      expect(events[0]).toBe("message_start");
      expect(events.slice(-2)).toEqual(["message_delta", "message_stop"]);
      expect(events.filter((type) => type === "content_block_start").length).toBe(whole.content.length);
      expect(events.filter((type) => type === "content_block_stop").length).toBe(whole.content.length);
      const { choices } = await tales.client.chat.completions.create({
        model: "tales",
        messages: [{ role: "system", content: ask.system }, ...ask.messages],
        max_tokens: 24,
        temperature: 1,
        seed,
      });
      expect(textOf(whole)).toBe(choices[0]!.message.content);
      expect(whole).toMatchObject({ type: "message", role: "assistant", model: "tales" });
      expect(whole._request_id).toMatch(/^[0-9a-f-]{36}$/);
    }
  });

  test("counts what was read and what was not", async () => {
    const messages = [{ role: "user" as const, content: "How many geese has the old woman?" }];
    const { input_tokens: all } = await client.messages.countTokens({ ...ask, messages });
    const first = (await client.messages.create({ ...ask, messages })).usage;
    const second = (await client.messages.create({ ...ask, messages })).usage;
    expect(first.input_tokens + first.cache_read_input_tokens!).toBe(all);
    expect([second.input_tokens, second.cache_read_input_tokens]).toEqual([0, all]);
    const { input_tokens: withTool } = await client.messages.countTokens({ ...ask, messages, tools: [tool] });
    expect(withTool).toBeGreaterThan(all);
  });

  test("ends at its length, by itself, or with a text that the request names", async () => {
    // Banned, the end of a text does not come before the text that is looked for.
    const long = {
      ...seeded(5),
      logit_bias: [
        ["\n", false],
        [tales.model.tokenizer.endOfText!, false],
      ],
    };
    const text = textOf(await client.messages.create(long));
    const stop = text.slice(4, 8);
    const stopped = await client.messages.create({ ...long, stop_sequences: ["\u0000", stop] });
    expect([textOf(stopped), stopped.stop_reason, stopped.stop_sequence]).toEqual([
      text.slice(0, text.indexOf(stop)),
      "stop_sequence",
      stop,
    ]);
    const cut = await client.messages.create({ ...long, max_tokens: 2 });
    expect([cut.stop_reason, cut.stop_sequence, cut.usage.output_tokens]).toEqual(["max_tokens", null, 2]);
    const end = { ...seeded(5), logit_bias: { [tales.model.tokenizer.endOfText!]: 100 } };
    expect(await client.messages.create(end)).toMatchObject({
      content: [],
      stop_reason: "end_turn",
      stop_sequence: null,
    });
  });

  test("takes contents and the system's text as blocks", async () => {
    const blocks = {
      ...seeded(6),
      system: [
        { type: "text" as const, text: "You tell " },
        { type: "text" as const, text: "tales." },
      ],
      messages: [{ role: "user" as const, content: [{ type: "text" as const, text: "Tell me of a wolf" }] }],
    };
    expect(textOf(await client.messages.create(blocks))).toBe(textOf(await client.messages.create(seeded(6))));
  });

  test("has a schema, where one is asked for", async () => {
    const parsed = await client.messages.create({
      ...ask,
      max_tokens: 100,
      output_config: { format: { type: "json_schema", schema: tool.input_schema as Record<string, unknown> } },
    });
    expect(JSON.parse(textOf(parsed))).toEqual({
      color: expect.stringMatching(/blue|grey/),
      clouds: expect.any(Number),
    });
    const forms = { grammar: 'root ::= "grey"', regex: "gr.y", choice: ["grey", "gray"] };
    for (const [name, form] of Object.entries(forms)) {
      expect(textOf(await client.messages.create({ ...ask, ...{ [name]: form } }))).toMatch(/^gr.y$/);
    }
  });
});

test("tools are called, and what they gave is read", async () => {
  const body = { ...ask, max_tokens: 200, tools: [tool] };
  const { content, stop_reason: reason } = await client.messages.create({ ...body, tool_choice: { type: "any" } });
  expect(reason).toBe("tool_use");
  const inputs = content.map((block) => (block.type === "tool_use" ? block.input : undefined));
  for (const input of inputs)
    expect(input).toEqual({ color: expect.stringMatching(/blue|grey/), clouds: expect.any(Number) });
  const one = { type: "tool" as const, name: "set_sky", disable_parallel_tool_use: true };
  const stream = client.messages.stream({ ...body, tool_choice: one });
  const called = (await stream.finalMessage()).content;
  expect(called).toEqual([{ type: "tool_use", id: expect.any(String), name: "set_sky", input: expect.any(Object) }]);
  const { id } = called[0] as Anthropic.ToolUseBlock;
  const messages: Anthropic.MessageParam[] = [
    ...ask.messages,
    { role: "assistant", content: [{ type: "thinking", thinking: "Hm", signature: "" }, ...called] },
    {
      role: "user",
      content: [
        { type: "tool_result", tool_use_id: id, content: "done" },
        { type: "text", text: "And now?" },
      ],
    },
  ];
  const answer = await client.messages.create({ ...body, max_tokens: 10, messages, tool_choice: { type: "none" } });
  expect(answer.content.every(({ type }) => type === "text")).toBe(true);
});

test("thoughts are blocks of their own", async () => {
  const thinking = await served({ format: "g1" });
  onTestFinished(() => thinking.close());
  const own = clientOf(thinking);
  const on = await own.messages.create({
    ...ask,
    max_tokens: 1100,
    thinking: { type: "enabled", budget_tokens: 1024 },
  });
  expect(on.content[0]).toEqual({ type: "thinking", thinking: expect.stringMatching(/./), signature: "" });
  const off = await own.messages.create({ ...ask, thinking: { type: "disabled" } });
  expect(off.content.map(({ type }) => type)).not.toContain("thinking");
  expect(on.usage.output_tokens_details!.thinking_tokens).toBeGreaterThan(0);
});

test("errors are as the client knows them", async () => {
  const wrong = [
    { max_tokens: 0 },
    { messages: [] },
    { messages: [{ role: "user", content: [{ type: "image", source: {} }] }] },
    { messages: [...ask.messages, { role: "assistant", content: "It" }] },
    { messages: [{ role: "user", content: [{ type: "tool_use", id: "1", name: "f", input: {} }] }] },
    { tools: [{ type: "web_search_20250305", name: "web_search" }] },
    { temperature: 1.5 },
    { tool_choice: { type: "tool", name: "g" }, tools: [tool] },
    { output_config: { format: { type: "json_schema", schema: { type: "strin" } } } },
  ];
  const schema = { type: "object" as const, properties: { a: { type: "strin" } } };
  const strict = client.messages.create({ ...ask, tools: [{ name: "f", strict: true, input_schema: schema }] });
  await expect(strict).rejects.toThrow(/tools\[0\]\.input_schema: .*strin/);
  for (const more of wrong) {
    for (const stream of [false, true]) {
      const error = await client.messages.create({ ...ask, ...more, stream } as never).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect(error, JSON.stringify(more)).toBeInstanceOf(Anthropic.BadRequestError);
      const { error: body, requestID: id } = error as InstanceType<typeof Anthropic.APIError>;
      expect(id).toBe((body as { request_id: string }).request_id);
      expect(body).toEqual({
        type: "error",
        error: { type: "invalid_request_error", message: expect.stringContaining(Object.keys(more)[0]!) },
        request_id: expect.any(String),
      });
    }
  }
  await expect(client.messages.create({ ...ask, model: "another" })).rejects.toBeInstanceOf(Anthropic.NotFoundError);
  const locked = await served({ apiKeys: ["secret"] }, { key: "secret" });
  onTestFinished(() => locked.close());
  await expect(clientOf(locked).messages.create(ask)).rejects.toBeInstanceOf(Anthropic.AuthenticationError);
  expect((await clientOf(locked, "secret").messages.create(ask)).type).toBe("message");
});

test("a client that leaves a stream frees its place", async () => {
  const stream = client.messages.stream({ ...ask, max_tokens: 5000, stop_sequences: [] });
  await new Promise((resolve) => stream.once("streamEvent", resolve));
  stream.abort();
  await expect(stream.finalMessage()).rejects.toBeInstanceOf(Anthropic.APIUserAbortError);
  await expect.poll(() => tales.app.load.running).toBe(0);
});

function textOf({ content }: Anthropic.Message): string {
  return content.map((block) => (block.type === "text" ? block.text : "")).join("");
}
