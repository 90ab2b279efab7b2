// Answers that are held to a form: JSON, schemas, grammars, choices, calls of tools. Whatever is sampled, they are of it.

import { Ajv } from "ajv";
import type OpenAI from "openai";
import { RwkvError } from "rwkv";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import type { Grammar } from "#rwkv/constraints/index";
import type { Conversation } from "#rwkv/server/chat-messages";
import { ConstraintCache } from "#rwkv/server/constraint-cache";
import { toolGrammar } from "#rwkv/server/tools";
import { openaiSchemas } from "./openai-schemas.js";
import { type Served, served } from "./served.js";

let tales: Served;
beforeAll(async () => {
  tales = await served();
});
afterAll(() => tales.close());

const ajv = new Ajv({ allowUnionTypes: true, strictTypes: false });
const validators = Object.fromEntries(
  Object.entries(openaiSchemas).map(([name, schema]) => [name, ajv.compile(schema)]),
);
function isOf(name: keyof typeof openaiSchemas, value: unknown): void {
  validators[name]!(value);
  expect(validators[name]!.errors).toBeNull();
}

/** A message with calls. */
interface Called {
  readonly tool_calls: readonly {
    readonly id: string;
    readonly function: { readonly name: string; readonly arguments: string };
  }[];
}

const seeds = [1, 2, 3, 4];
const ask = { messages: [{ role: "user", content: "What is the weather in Rome?" }], max_tokens: 400, temperature: 1 };
const place = {
  type: "object",
  properties: {
    city: { type: "string", enum: ["Paris", "Rome", 'the "old" town\n'] },
    days: { type: "array", items: { type: "integer", minimum: 1, maximum: 31 }, minItems: 1, maxItems: 3 },
    note: { type: "string", maxLength: 12 },
  },
  required: ["city", "days"],
  additionalProperties: false,
};
const weather = {
  type: "function" as const,
  function: { name: "get_weather", description: "Weather", parameters: place },
};
const now = { type: "function" as const, function: { name: "now", description: "The time" } };

async function chat(body: object, server = tales) {
  const response = await server.post("/v1/chat/completions", { ...ask, ...body });
  const answer = await response.json();
  if (response.status === 200) isOf("chat", answer);
  else isOf("error", answer);
  return { status: response.status, answer, choice: answer.choices?.[0], error: answer.error };
}

test("others are served while a grammar is made of many tools, and those who ask for the same get the same", async () => {
  const parameters = (i: number) => ({
    ...place,
    properties: { ...place.properties, [`own_${i}`]: { type: "string" } },
  });
  const tools = Array.from({ length: 128 }, (_, i) => ({
    type: "function" as const,
    function: { name: `tool_${i}`, parameters: parameters(i) },
  }));
  const cache = new ConstraintCache(tales.model);
  const conversation = { messages: [], tools, tool_choice: "auto" } as unknown as Conversation;
  const ask = () => cache.of({ tools }, () => toolGrammar(conversation, undefined, []));
  const asked = [ask(), ask()];
  let turns = 0;
  let isOver = false;
  void asked[0]!.then(() => {
    isOver = true;
  });
  while (!isOver) {
    await new Promise(setImmediate);
    turns++;
  }
  expect(turns).toBeGreaterThan(10);
  expect(await asked[0]).toBe(await asked[1]);
  expect(await ask()).toBe(await asked[0]);
});

describe("forms", () => {
  test("of a schema, whole and as a stream", async () => {
    const valid = ajv.compile(place);
    const format = { type: "json_schema", json_schema: { name: "place", strict: true, schema: place } };
    for (const seed of seeds) {
      const { choice } = await chat({ seed, response_format: format });
      expect(valid(JSON.parse(choice.message.content))).toBe(true);
      expect(choice.finish_reason).toBe("stop");
      const streamed = await (
        await tales.post("/v1/chat/completions", { ...ask, seed, response_format: format, stream: true })
      ).text();
      const chunks = chunksOf(streamed);
      for (const chunk of chunks) isOf("chunk", chunk);
      expect(chunks.map(({ choices }) => choices[0]!.delta.content ?? "").join("")).toBe(choice.message.content);
    }
  });

  test("of any JSON object, a grammar, an expression, a choice", async () => {
    const forms: [body: object, fits: (text: string) => boolean][] = [
      [{ grammar: 'root ::= ("ab" | "c") [0-9]{2}' }, (text) => /^(ab|c)[0-9]{2}$/.test(text)],
      [{ regex: "[a-f]{3}-\\d{1,4}" }, (text) => /^[a-f]{3}-\d{1,4}$/.test(text)],
      [
        {
          regex: "[ab]",
          logit_bias: [
            ["a", false],
            ["b", false],
          ],
        },
        (text) => /^[ab]$/.test(text),
      ],
      [{ choice: ["yes", "no", "vielleicht 🐺"] }, (text) => ["yes", "no", "vielleicht 🐺"].includes(text)],
      [{ structured_outputs: { choice: ["left", "right"] } }, (text) => ["left", "right"].includes(text)],
      [{ structured_outputs: { json: JSON.stringify({ type: "boolean" }) } }, (text) => /^(true|false)$/.test(text)],
    ];
    for (const [body, fits] of forms) {
      for (const seed of seeds) {
        const { content } = (await chat({ ...body, seed })).choice.message;
        const written = await tales.post("/v1/completions", {
          prompt: "It is",
          max_tokens: 50,
          temperature: 1,
          ...body,
          seed,
        });
        const { text, finish_reason: end } = (await written.json()).choices[0];
        expect([content, text].map(fits), `${content} ${text}`).toEqual([true, true]);
        expect(end).toBe("stop");
      }
    }
    // A biased model ends its object soon.
    const { choice } = await chat({ response_format: { type: "json_object" }, logit_bias: [["}", 50]] });
    expect(JSON.parse(choice.message.content)).toEqual({});
  });

  test("what cannot be held to is refused before the first byte, and named", async () => {
    const schema = (schema: object) => ({
      response_format: { type: "json_schema", json_schema: { name: "x", schema } },
    });
    const wrong: [body: object, param: string][] = [
      [schema({ type: "strin" }), "response_format.json_schema.schema"],
      [schema({ not: { type: "object" } }), "response_format.json_schema.schema"],
      [{ response_format: { type: "xml" } }, "response_format.type"],
      [{ grammar: "root ::= root" }, "grammar"],
      [{ regex: "(" }, "regex"],
      [{ choice: [] }, "choice"],
      [{ choice: ["a"], regex: "a" }, "choice"],
      [{ structured_outputs: { json: "{" } }, "structured_outputs.json"],
      [{ tools: [{ type: "function", function: { name: "a b" } }] }, "tools[0].function.name"],
      [{ tools: [now, now] }, "tools[1].function.name"],
      [{ tools: [now], tool_choice: { type: "function", function: { name: "then" } } }, "tool_choice.function.name"],
      [{ tool_choice: "required" }, "tool_choice"],
      [
        {
          tools: [
            { type: "function", function: { name: "f", strict: true, parameters: { properties: { a: { not: {} } } } } },
          ],
        },
        "tools[0].function.parameters",
      ],
    ];
    const wide = {
      type: "object",
      properties: Object.fromEntries(Array.from({ length: 3000 }, (_, i) => [`p${i}`, {}])),
    };
    const tools = Array.from({ length: 20 }, (_, i) => ({ ...now, function: { name: `f${i}`, parameters: wide } }));
    for (const [body, param] of [...wrong, [{ tools }, "tools"] as const]) {
      for (const stream of [false, true]) {
        const { status, error } = await chat({ ...body, stream });
        expect([status, error.param], JSON.stringify(body)).toEqual([400, param]);
        expect(error.message).not.toMatch(/option/);
      }
    }
  });

  test("that turn out to be too much only when a text follows them are the request's error", async () => {
    const tooMuch = () => {
      throw new RwkvError("the grammar is too ambiguous");
    };
    const cache = new ConstraintCache(tales.model);
    for (const [name, own] of Object.entries({ allowedTokens: tooMuch, forcedTokens: tooMuch, mayEnd: tooMuch })) {
      const constraint = { begin: () => ({ [name]: own }) };
      const grammar = { compile: () => stepsTo(constraint) } as unknown as Grammar;
      const begun = (await cache.of({ name }, () => stepsTo(grammar)))!.begin!();
      expect(() => begun[name as "mayEnd"]!([])).toThrow(
        expect.objectContaining({ status: 400, message: expect.stringMatching(/ambiguous/) }),
      );
    }
  });
});

describe("tools", () => {
  const valid = ajv.compile(place);
  const checkCalls = (calls: Called["tool_calls"]) => {
    expect(new Set(calls.map(({ id }) => id)).size).toBe(calls.length);
    for (const { function: called } of calls) {
      const values = JSON.parse(called.arguments);
      if (called.name === "get_weather") expect(valid(values), called.arguments).toBe(true);
      else expect([called.name, values]).toEqual(["now", {}]);
    }
  };

  test("that must be called are, with arguments that are allowed", async () => {
    for (const seed of seeds) {
      const { choice } = await chat({ seed, tools: [weather, now], tool_choice: "required", stop: ["\n", "{"] });
      expect(choice).toMatchObject({ finish_reason: "tool_calls", message: { content: null } });
      checkCalls(choice.message.tool_calls);
    }
  });

  test("that are named, or may be called one at a time, are called once", async () => {
    for (const seed of seeds) {
      for (const name of ["get_weather", "now", undefined]) {
        const more = name
          ? { tool_choice: { type: "function", function: { name } } }
          : { tool_choice: "required", parallel_tool_calls: false };
        const { choice } = await chat({ seed, tools: [now, weather], ...more });
        expect(choice.message.tool_calls).toHaveLength(1);
        checkCalls(choice.message.tool_calls);
        if (name) expect(choice.message.tool_calls[0].function.name).toBe(name);
      }
    }
  });

  test("a stream has the id and the name of a call once, and the same arguments", async () => {
    for (const seed of seeds) {
      const body = { seed, n: 2, tools: [weather, now], tool_choice: "required" };
      const whole = await chat(body);
      const response = await tales.post("/v1/chat/completions", { ...ask, ...body, stream: true });
      const calls: { name: string; arguments: string }[][] = [[], []];
      const ends: unknown[] = [];
      for (const chunk of chunksOf(await response.text())) {
        isOf("chunk", chunk);
        for (const { index, delta, finish_reason: end } of chunk.choices) {
          for (const { index: at, id, type, function: called = {} } of delta.tool_calls ?? []) {
            const own = calls[index]!;
            expect([id !== undefined, type, called.name !== undefined]).toEqual(
              at === own.length ? [true, "function", true] : [false, undefined, false],
            );
            if (called.name !== undefined) own.push({ name: called.name, arguments: "" });
            own[at]!.arguments += called.arguments ?? "";
          }
          if (end) ends.push(end);
        }
      }
      expect(ends).toEqual(["tool_calls", "tool_calls"]);
      expect(calls).toEqual(
        whole.answer.choices.map(({ message }: { message: Called }) => message.tool_calls.map((call) => call.function)),
      );
    }
  });

  test("that may be called need not be; a call that is begun is whole", async () => {
    const { choice } = await chat({ seed: 1, tools: [weather], max_tokens: 20 });
    expect(choice.message.content).toMatch(/./);
    expect(choice.message.tool_calls).toBeUndefined();
    const none = await chat({ seed: 1, tools: [weather], tool_choice: "none", max_tokens: 20 });
    expect(none.answer.usage.prompt_tokens).toBeLessThan(choice.message.content.length + 150); // nothing of tools is read
  });

  test("an answer may have text before calls, which are whole once they are begun", () => {
    const text = (given: string) => accepts({ messages: [], tools: [weather, now] }, given);
    const call = (values: string) =>
      `**Tool Call:**\n\`\`\`json\n{"name": "get_weather", "arguments": ${values}}\n\`\`\``;
    const one = call('{"city":"Rome","days":[3]}');
    const two = call('{"city":"Paris","days":[1,2,3]}');
    for (const good of [
      "",
      "It rains. **Tool**",
      one,
      `Let me see.\n\n${one}`,
      `${one}\n${two}`,
      `${one}\n\n### User`,
    ]) {
      expect(text(good), good).toBe(true);
    }
    for (const bad of ["**Tool Call:** none", call('{"city":"Bonn","days":[3]}'), one.slice(0, -1), `${one} and`]) {
      expect(text(bad), bad).toBe(false);
    }
  });

  test("parameters that cannot be held to allow any object, unless the tool is strict", async () => {
    const loose = {
      type: "function",
      function: { name: "f", parameters: { type: "object", not: { required: ["a"] } } },
    };
    const { choice } = await chat({ tools: [loose], tool_choice: "required", logit_bias: [["}", 50]] });
    expect(JSON.parse(choice.message.tool_calls[0].function.arguments)).toEqual({});
  });

  test("what they gave is part of the conversation", async () => {
    const call = { id: "call-1", type: "function", function: { name: "get_weather", arguments: '{"city":"Rome"}' } };
    const messages = [
      ...ask.messages,
      { role: "assistant", content: null, tool_calls: [call] },
      { role: "tool", tool_call_id: "call-1", content: '{"sky":"blue"}' },
    ];
    const { status, answer } = await chat({ messages, tools: [weather], max_tokens: 5 });
    const other = await chat({ messages: messages.slice(0, 1), tools: [weather], max_tokens: 5 });
    expect(status).toBe(200);
    expect(answer.usage.prompt_tokens).toBeGreaterThan(other.answer.usage.prompt_tokens);
    const wrong = [{ ...messages[1], tool_calls: [{ ...call, function: { ...call.function, arguments: "{" } }] }];
    const { error } = await chat({ messages: [...ask.messages, ...wrong] });
    expect(error.param).toBe("messages[1].tool_calls[0].function.arguments");
  });

  test("a thought comes before a call, and is free", async () => {
    const thinking = await served({ format: "g1" });
    onTestFinished(() => thinking.close());
    const body = { tools: [weather], tool_choice: "required", parallel_tool_calls: false, seed: 1 };
    const closed = await chat({ ...body, chat_template_kwargs: { enable_thinking: false } }, thinking);
    checkCalls(closed.choice.message.tool_calls);
    // This model never ends a thought of its own accord.
    const on = await chat({ ...body, max_tokens: 30 }, thinking);
    expect(on.choice).toMatchObject({ finish_reason: "length", message: { content: "" } });
    expect(on.choice.message.reasoning_content).toMatch(/./);
  });
});

test("all answers are of the form that OpenAI publishes", async () => {
  const text = await tales.post("/v1/completions", {
    prompt: ["a", "b"],
    max_tokens: 3,
    n: 2,
    logprobs: 2,
    echo: true,
  });
  isOf("text", await text.json());
  const embeddings = await tales.post("/v1/embeddings", { input: ["a", "b"] });
  isOf("embeddings", await embeddings.json());
  isOf("models", await (await fetch(`${tales.url}/v1/models`)).json());
  const told = await chat({ max_tokens: 3, logprobs: true, top_logprobs: 2, n: 2 });
  expect(told.status).toBe(200);
  for (const wrong of [{ messages: [] }, { messages: 1 }, { temperature: 9 }])
    expect((await chat(wrong)).status).toBe(400);
});

/** Steps that end with a value. */
function* stepsTo<T>(value: T): Generator<void, T, void> {
  yield;
  return value;
}

/** Whether a text follows the grammar of a conversation with tools, token by token, and may end there. */
function accepts(conversation: Conversation, text: string): boolean {
  const steps = toolGrammar(conversation, undefined, ["\n### User"]);
  let made = steps.next();
  while (!made.done) made = steps.next();
  const constraint = made.value.for(tales.model).begin!();
  const tokens = tales.model.tokenizer.encode(text);
  const allows = (token: number, i: number) => {
    const mask = constraint.allowedTokens!(tokens.slice(0, i))!;
    return ((mask[token >>> 5]! >>> (token & 31)) & 1) === 1;
  };
  return tokens.every(allows) && constraint.mayEnd!(tokens);
}

/** The values of a stream, whose end is as OpenAI's clients expect it. */
function chunksOf(stream: string): OpenAI.ChatCompletionChunk[] {
  const events = stream.trimEnd().split("\n\n");
  expect(events.pop()).toBe("data: [DONE]");
  return events.map((event) => JSON.parse(event.replace(/^data: /, "")));
}
