// The server over HTTP, with the client that most programs have: what it answers.

import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { type Served, served } from "./served.js";

let tales: Served;
beforeAll(async () => {
  tales = await served();
});
afterAll(() => tales.close());

const sampling = { temperature: 1, top_p: 0.9, presence_penalty: 0, frequency_penalty: 0 };
const chat = {
  model: "tales",
  messages: [{ role: "user" as const, content: "Tell me a tale" }],
  max_tokens: 40,
  ...sampling,
};
const text = { model: "tales", prompt: "Once upon a time", max_tokens: 20, ...sampling };

describe("a stream says what the whole answer does", () => {
  test("of a conversation", async () => {
    for (const seed of [1, 2, 3]) {
      const whole = await tales.client.chat.completions.create({
        ...chat,
        seed,
        n: 2,
        logprobs: true,
        top_logprobs: 2,
      });
      const stream = await tales.client.chat.completions.create({
        ...chat,
        seed,
        n: 2,
        logprobs: true,
        top_logprobs: 2,
        stream: true,
        stream_options: { include_usage: true },
      });
      const contents = ["", ""];
      const tokens: unknown[][] = [[], []];
      const reasons: unknown[] = [null, null];
      let usage: unknown;
      for await (const chunk of stream) {
        expect(chunk.object).toBe("chat.completion.chunk");
        for (const { index, delta, logprobs, finish_reason: reason } of chunk.choices) {
          contents[index] += delta.content ?? "";
          tokens[index]!.push(...(logprobs?.content ?? []));
          reasons[index] ??= reason;
        }
        if (chunk.choices.length === 0) usage = chunk.usage;
        else expect(chunk.usage).toBeNull();
      }
      expect(contents).toEqual(whole.choices.map(({ message }) => message.content));
      expect(tokens).toEqual(whole.choices.map(({ logprobs }) => logprobs?.content));
      expect(reasons).toEqual(whole.choices.map(({ finish_reason: reason }) => reason));
      expect(usage).toEqual({ ...whole.usage, prompt_tokens_details: { cached_tokens: whole.usage!.prompt_tokens } });
    }
  });

  test("of a text", async () => {
    const whole = await tales.client.completions.create({ ...text, seed: 7, n: 2, logprobs: 1, echo: true });
    const stream = await tales.client.completions.create({
      ...text,
      seed: 7,
      n: 2,
      logprobs: 1,
      echo: true,
      stream: true,
    });
    const texts = ["", ""];
    const offsets: unknown[][] = [[], []];
    for await (const { choices } of stream) {
      for (const { index, text, logprobs } of choices) {
        texts[index] += text;
        offsets[index]!.push(...(logprobs?.text_offset ?? []));
      }
    }
    expect(texts).toEqual(whole.choices.map(({ text }) => text));
    expect(offsets).toEqual(whole.choices.map(({ logprobs }) => logprobs?.text_offset));
    expect(texts.every((one) => one.startsWith(text.prompt) && one.length > text.prompt.length)).toBe(true);
  });
});

test("a text is what the library writes with the same seed, whoever else is served", async () => {
  const seeds = Array.from({ length: 12 }, (_, seed) => seed);
  const options = { maxTokens: 20, temperature: 1, topP: 0.9, presencePenalty: 0, frequencyPenalty: 0 };
  const expected = [];
  for (const seed of seeds) expected.push(await tales.model.generate(text.prompt, { ...options, seed }).text());
  const found = await Promise.all(seeds.map((seed) => tales.client.completions.create({ ...text, seed })));
  expect(found.map(({ choices }) => choices[0]!.text)).toEqual(expected);
  expect(new Set(expected).size).toBeGreaterThan(6);
  const few = await served({ limits: { concurrent: 3 } }); // most of them wait for a place
  onTestFinished(() => few.close());
  const waited = await Promise.all(seeds.map((seed) => few.client.completions.create({ ...text, seed })));
  expect(waited.map(({ choices }) => choices[0]!.text)).toEqual(expected);
});

test("several prompts and texts have the order of the request, and count together", async () => {
  const prompts = ["The king", "The queen"];
  const { choices, usage } = await tales.client.completions.create({
    ...text,
    prompt: prompts,
    n: 2,
    seed: 3,
    echo: true,
  });
  expect(choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
  expect(choices.map(({ text }) => prompts.findIndex((one) => text.startsWith(one)))).toEqual([0, 0, 1, 1]);
  const ids = prompts.map((one) => tales.model.tokenizer.encode(one));
  expect(usage!.prompt_tokens).toBe(ids.flat().length);
  const byIds = await tales.client.completions.create({ ...text, prompt: ids, n: 2, seed: 3, echo: true });
  expect(byIds.choices.map(({ text }) => text)).toEqual(choices.map(({ text }) => text));
});

describe("log-probabilities", () => {
  test("are sorted, sum to at most 1, and begin with the token at temperature 0", async () => {
    const { choices } = await tales.client.completions.create({ ...text, temperature: 0, logprobs: 5 });
    const { tokens, token_logprobs: chosen, top_logprobs: top } = choices[0]!.logprobs!;
    tokens!.forEach((token, i) => {
      const values = Object.values(top![i]!);
      expect(values).toEqual([...values].sort((a, b) => b - a));
      expect(values.reduce((sum, value) => sum + Math.exp(value), 0)).toBeLessThanOrEqual(1 + 1e-6);
      expect(Object.keys(top![i]!)[0]).toBe(token);
      expect(chosen![i]).toBe(values[0]);
    });
  });

  test("of a prompt alone", async () => {
    const { choices } = await tales.client.completions.create({ ...text, max_tokens: 0, echo: true, logprobs: 0 });
    const { tokens, token_logprobs: values } = choices[0]!.logprobs!;
    expect([choices[0]!.text, tokens!.join("")]).toEqual([text.prompt, text.prompt]);
    const state = tales.model.createState();
    const ids = tales.model.tokenizer.encode(text.prompt);
    const [logits] = await tales.model.forward([{ state, tokens: ids.slice(0, 1) }]);
    const total = Math.log(logits!.reduce((sum, logit) => sum + Math.exp(logit), 0));
    expect(values![0]).toBeNull();
    expect(values![1]).toBeCloseTo(logits![ids[1]!]! - total, 4);
    await state.dispose();
  });

  test("of a text with tokens that are parts of characters name each, and say where it begins", async () => {
    const { choices } = await tales.client.completions.create({
      ...text,
      prompt: "狼 a 🐺, ",
      max_tokens: 2,
      temperature: 0,
      echo: true,
      logprobs: 20,
    });
    const { tokens, top_logprobs: top, text_offset: offsets } = choices[0]!.logprobs!;
    const bytes = [...new TextEncoder().encode("狼")].map((byte) => `bytes:\\x${byte.toString(16)}`);
    expect(tokens!.slice(0, 6)).toEqual([...bytes, " a", " ", "bytes:\\xf0"]);
    expect(offsets!.slice(0, 11)).toEqual([0, 0, 0, 1, 3, 4, 4, 4, 4, 6, 7]);
    // None of the most probable ones is lost for another that looks the same.
    expect(top!.slice(1).map((one) => Object.keys(one!).length)).toEqual(top!.slice(1).map(() => 20));
  });
});

test("biases by id and by text, and bans, hold", async () => {
  const [id] = tales.model.tokenizer.encode(" the");
  const banned = async (bias: unknown) => {
    const answer = await tales.post("/v1/completions", { ...text, seed: 4, max_tokens: 60, logit_bias: bias });
    return tales.model.tokenizer.encode((await answer.json()).choices[0].text).includes(id!);
  };
  const plain = await tales.client.completions.create({ ...text, seed: 4, max_tokens: 60 });
  expect(tales.model.tokenizer.encode(plain.choices[0]!.text)).toContain(id);
  expect(await Promise.all([{ [id!]: -100 }, [[id, false]], [[" the", false]], [[" the", -100]]].map(banned))).toEqual([
    false,
    false,
    false,
    false,
  ]);
  const forced = await tales.client.completions.create({ ...text, logit_bias: { [id!]: 100 }, max_tokens: 3 });
  expect(forced.choices[0]!.text).toBe(" the the the");
});

test("stop strings end a text, and are no part of it", async () => {
  const all = (await tales.client.completions.create({ ...text, seed: 5, max_tokens: 60 })).choices[0]!.text;
  const stop = all.slice(20, 24);
  const { choices } = await tales.client.completions.create({ ...text, seed: 5, max_tokens: 60, stop });
  expect([choices[0]!.text, choices[0]!.finish_reason]).toEqual([all.slice(0, all.indexOf(stop)), "stop"]);
});

test("what a request does not say may also be null, and unknown fields are left out", async () => {
  const nothing = {
    temperature: null,
    stop: null,
    n: null,
    logit_bias: null,
    stream_options: null,
    seed: 9,
    user: "me",
    zzz: [1],
  };
  const answer = await tales.post("/v1/chat/completions", { messages: chat.messages, max_tokens: 4, ...nothing });
  expect(answer.status).toBe(200);
});

test("what an assistant has said may be parts, of which a refusal is one", async () => {
  const tokensOf = async (content: unknown) => {
    const messages = [...chat.messages, { role: "assistant", content }, ...chat.messages];
    const answer = await tales.post("/v1/chat/completions", { messages, max_tokens: 1 });
    return (await answer.json()).usage.prompt_tokens;
  };
  const parts = [
    { type: "text", text: "No. " },
    { type: "refusal", refusal: "I do not." },
  ];
  expect(await tokensOf(parts)).toBe(await tokensOf("No. I do not."));
});

test("thoughts are told apart from answers, and can be turned off", async () => {
  const thinking = await served({ format: "g1" });
  onTestFinished(() => thinking.close());
  const ask = async (more: object) => {
    const body = { ...chat, seed: 1, ...more };
    const { choices, usage } = await (await thinking.post("/v1/chat/completions", body)).json();
    const { content, reasoning_content: thought } = choices[0].message;
    return {
      content,
      thought,
      reasoning: usage.completion_tokens_details.reasoning_tokens,
      prompt: usage.prompt_tokens,
    };
  };
  const on = await ask({});
  expect(on).toMatchObject({ content: "", thought: expect.stringMatching(/./) }); // this model never ends its thought
  expect(on.reasoning).toBeGreaterThan(20);
  const closed = await ask({
    logit_bias: { 0: -100 },
    max_tokens: 20,
    chat_template_kwargs: { enable_thinking: false },
  });
  expect(closed).toMatchObject({ content: expect.stringMatching(/./), thought: undefined, reasoning: 0 });
  const prompts = ["none", "low", "high"].map(
    async (effort) => (await ask({ reasoning_effort: effort, max_tokens: 1 })).prompt,
  );
  expect(new Set(await Promise.all(prompts)).size).toBeGreaterThan(1);
  const streamed = await thinking.client.chat.completions.create({ ...chat, seed: 1, stream: true });
  let thought = "";
  for await (const { choices } of streamed) {
    thought += (choices[0]!.delta as { reasoning_content?: string }).reasoning_content ?? "";
  }
  expect(thought).toBe(on.thought);
});

describe("models and tokens", () => {
  test("are told", async () => {
    const list = await tales.client.models.list();
    expect(list.data.map(({ id, object }) => [id, object])).toEqual([["tales", "model"]]);
    expect((await tales.client.models.retrieve("tales")).id).toBe("tales");
    await expect(tales.client.models.retrieve("gpt-4")).rejects.toBeInstanceOf(OpenAI.NotFoundError);
  });

  test("go there and back, bytes that are no characters included", async () => {
    const content = "A wolf, 狼 and 🐺";
    const { tokens } = await (await tales.post("/tokenize", { content })).json();
    expect(tokens).toEqual(tales.model.tokenizer.encode(content));
    expect((await (await tales.post("/detokenize", { tokens })).json()).content).toBe(content);
    const end = tales.model.tokenizer.endOfText!;
    const special = await (await tales.post("/detokenize", { tokens: [end, ...tokens] })).json();
    expect(special.content).toBe(`<|endoftext|>${content}`);
    expect((await (await tales.post("/tokenize", special)).json()).tokens).toEqual([end, ...tokens]);
    const pieces = (await (await tales.post("/tokenize", { content, with_pieces: true })).json()).tokens;
    const encoder = new TextEncoder();
    const bytes = pieces.flatMap(({ piece }: { piece: string | number[] }) =>
      typeof piece === "string" ? [...encoder.encode(piece)] : piece,
    );
    expect(bytes).toEqual([...encoder.encode(content)]);
    expect(pieces.some(({ piece }: { piece: unknown }) => Array.isArray(piece))).toBe(true);
  });
});

test("the description of the API names every route, and what a body must be", async () => {
  const { openapi, paths } = await (await fetch(`${tales.url}/openapi.json`)).json();
  expect(openapi).toBe("3.1.0");
  expect(Object.keys(paths)).toEqual(
    expect.arrayContaining(["/v1/chat/completions", "/v1/completions", "/v1/models/{id}"]),
  );
  expect(Object.keys(paths["/v1/states/{id}"])).toEqual(["get", "delete"]);
  const upload = paths["/v1/states/upload"].post;
  expect(Object.keys(upload.requestBody.content)).toEqual(["application/octet-stream"]);
  expect(upload.parameters.map(({ name }: { name: string }) => name)).toEqual(["name", "ttl_seconds"]);
  const schema = paths["/v1/completions"].post.requestBody.content["application/json"].schema;
  expect(schema.required).toEqual(["prompt"]);
  expect(Object.keys(schema.properties)).toEqual(expect.arrayContaining(["top_p", "logit_bias", "max_tokens"]));
});
