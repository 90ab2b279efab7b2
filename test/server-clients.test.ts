// The server and what others wrote for OpenAI's API: the helpers of `openai`, the AI SDK, LangChain.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { tool as langchainTool } from "@langchain/core/tools";
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { APICallError, embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { z } from "zod";
import { type Served, served } from "./served.js";

let tales: Served;
beforeAll(async () => {
  tales = await served();
});
afterAll(() => tales.close());

const question = "What is the weather in Rome?";
const sampling = { temperature: 1, max_tokens: 300 };
const weather = z.strictObject({ city: z.enum(["Paris", "Rome"]), days: z.int().min(1).max(9) });
const isWeather = (value: unknown) => weather.safeParse(value).success;

describe("openai", () => {
  const ask = { model: "tales", messages: [{ role: "user" as const, content: question }], ...sampling };

  test("streams by its helper", async () => {
    const ends = [tales.model.tokenizer.endOfText!, ...tales.model.tokenizer.encode("\n")];
    const body = { ...ask, max_tokens: 20, seed: 1, logit_bias: Object.fromEntries(ends.map((id) => [id, -100])) };
    const stream = tales.client.chat.completions.stream(body);
    let heard = "";
    stream.on("content", (delta) => {
      heard += delta;
    });
    const whole = await tales.client.chat.completions.create(body);
    expect(whole.choices[0]!.message.content).toMatch(/./);
    expect(await stream.finalContent()).toBe(whole.choices[0]!.message.content);
    expect(heard).toBe(whole.choices[0]!.message.content);
  });

  test("parses what a schema says", async () => {
    const { choices } = await tales.client.chat.completions.parse({
      ...ask,
      response_format: zodResponseFormat(weather, "weather"),
    });
    expect(isWeather(choices[0]!.message.parsed)).toBe(true);
    const strict = zodFunction({ name: "get_weather", parameters: weather });
    const called = await tales.client.chat.completions.parse({ ...ask, tools: [strict], tool_choice: "required" });
    const calls = called.choices[0]!.message.tool_calls!;
    expect(calls.length).toBeGreaterThan(0);
    for (const call of calls) expect(isWeather(call.function.parsed_arguments)).toBe(true);
  });

  test("runs tools, and tells the model what they gave", async () => {
    const given: unknown[] = [];
    const runner = tales.client.chat.completions.runTools(
      {
        ...ask,
        stream: true,
        tool_choice: { type: "function", function: { name: "get_weather" } },
        tools: [
          {
            type: "function",
            function: {
              name: "get_weather",
              description: "The weather",
              parameters: z.toJSONSchema(weather) as Record<string, unknown>,
              parse: JSON.parse,
              function: (values: object) => {
                given.push(values);
                return { sky: "blue" };
              },
            },
          },
        ],
      },
      { maxChatCompletions: 2 },
    );
    await runner.done();
    expect(given.length).toBe(1); // a named function is run once
    expect(given.every(isWeather)).toBe(true);
  });

  test("is told of errors, and tries again where that may help", async () => {
    const wrong = tales.client.chat.completions.create({ ...ask, temperature: 9 });
    await expect(wrong).rejects.toMatchObject({ status: 400, param: "temperature", type: "invalid_request_error" });
    await expect(tales.client.chat.completions.create({ ...ask, model: "gpt" })).rejects.toBeInstanceOf(
      OpenAI.NotFoundError,
    );

    const busy = await served({ limits: { concurrent: 1, waiting: 0 } });
    onTestFinished(() => busy.close());
    const holder = await busy.client.completions.create({
      model: "tales",
      prompt: "Once",
      max_tokens: 16_000,
      logit_bias: { [busy.model.tokenizer.endOfText!]: -100 },
      stream: true,
    });
    const statuses: number[] = [];
    const patient = new OpenAI({
      baseURL: `${busy.url}/v1`,
      apiKey: "none",
      maxRetries: 3,
      fetch: async (input, init) => {
        const response = await fetch(input, init);
        statuses.push(response.status);
        holder.controller.abort();
        return response;
      },
    });
    expect((await patient.chat.completions.create({ ...ask, max_tokens: 3 })).object).toBe("chat.completion");
    expect(statuses).toEqual([429, 200]);
  });

  test("that leaves frees its place", async () => {
    const stream = await tales.client.chat.completions.create({ ...ask, max_tokens: 5000, stream: true, n: 3 });
    for await (const _ of stream) break;
    await expect.poll(() => tales.app.load.running).toBe(0);
  });
});

describe("the AI SDK", () => {
  const provider = () =>
    createOpenAICompatible({
      name: "rwkv",
      baseURL: `${tales.url}/v1`,
      includeUsage: true,
      supportsStructuredOutputs: true,
    });
  const asked = () => ({
    model: provider()("tales"),
    prompt: question,
    temperature: 1,
    maxOutputTokens: 300,
    maxRetries: 0,
  });

  test("writes and streams texts", async () => {
    const whole = await generateText({ ...asked(), maxOutputTokens: 20, seed: 2 });
    const stream = streamText({ ...asked(), maxOutputTokens: 20, seed: 2 });
    let text = "";
    for await (const piece of stream.textStream) text += piece;
    expect(text).toBe(whole.text);
    expect((await stream.usage).outputTokens).toBe(whole.usage.outputTokens);
    expect(["stop", "length"]).toContain(await stream.finishReason);
  });

  test("has objects of a schema", async () => {
    const { output } = await generateText({ ...asked(), output: Output.object({ schema: weather }) });
    expect(isWeather(output)).toBe(true);
  });

  test("calls tools, whole and as a stream, and goes on with what they gave", async () => {
    const given: unknown[] = [];
    const get_weather = tool({
      description: "The weather",
      inputSchema: weather,
      execute: async (values) => {
        given.push(values);
        return { sky: "blue" };
      },
    });
    const more = { tools: { get_weather }, toolChoice: "required" as const, stopWhen: stepCountIs(2) };
    const { steps } = await generateText({ ...asked(), ...more });
    expect(steps.map(({ finishReason }) => finishReason)).toEqual(["tool-calls", "tool-calls"]);
    const stream = streamText({ ...asked(), ...more, stopWhen: stepCountIs(1) });
    await stream.consumeStream();
    expect((await stream.toolCalls).length).toBeGreaterThan(0);
    expect(given.length).toBeGreaterThanOrEqual(3);
    expect(given.every(isWeather)).toBe(true);
  });

  test("has embeddings, errors and an end", async () => {
    const { embeddings, usage } = await embedMany({
      model: provider().embeddingModel("tales"),
      values: ["a wolf", "a king"],
    });
    expect(embeddings.map(({ length }) => length)).toEqual([192, 192]);
    expect(usage.tokens).toBeGreaterThan(0);
    const wrong = await generateText({ ...asked(), temperature: 9 }).catch((error: unknown) => error);
    expect(APICallError.isInstance(wrong) && [wrong.statusCode, wrong.message]).toEqual([
      400,
      expect.stringMatching(/^temperature/),
    ]);
    const leaving = new AbortController();
    const stream = streamText({ ...asked(), maxOutputTokens: 5000, abortSignal: leaving.signal });
    for await (const _ of stream.textStream) leaving.abort();
    await expect.poll(() => tales.app.load.running).toBe(0);
  });
});

describe("LangChain", () => {
  const model = (more: object = {}) =>
    new ChatOpenAI({
      model: "tales",
      apiKey: "none",
      temperature: 1,
      maxTokens: 300,
      maxRetries: 0,
      configuration: { baseURL: `${tales.url}/v1` },
      ...more,
    });

  test("writes and streams texts", async () => {
    const seeded = model({ maxTokens: 20, modelKwargs: { seed: 3 } });
    const whole = await seeded.invoke(question);
    let text = "";
    for await (const chunk of await seeded.stream(question)) text += chunk.text;
    expect(text).toBe(whole.text);
    expect(whole.usage_metadata).toMatchObject({ output_tokens: expect.any(Number) });
  });

  test("has objects of a schema, by JSON and by a tool", async () => {
    for (const method of ["jsonSchema", "functionCalling"] as const) {
      expect(isWeather(await model().withStructuredOutput(weather, { name: "weather", method }).invoke(question))).toBe(
        true,
      );
    }
  });

  test("calls tools, and goes on with what they gave", async () => {
    const getWeather = langchainTool(() => "blue", {
      name: "get_weather",
      description: "The weather",
      schema: weather,
    });
    const bound = model().bindTools([getWeather], { tool_choice: "required" });
    const asked = new HumanMessage(question);
    const called = await bound.invoke([asked]);
    const calls = called.tool_calls!;
    expect(calls.length).toBeGreaterThan(0);
    expect(calls.every(({ args }) => isWeather(args))).toBe(true);
    const results = calls.map(({ id }) => new ToolMessage({ content: "blue", tool_call_id: id! }));
    const streamed = await bound.stream([asked, called, ...results]);
    const chunks = [];
    for await (const chunk of streamed) chunks.push(chunk);
    const all = chunks.reduce((before, chunk) => before.concat(chunk));
    expect(all.tool_calls!.length).toBeGreaterThan(0);
    expect(all.tool_calls!.every(({ args }) => isWeather(args))).toBe(true);
  });

  test("has embeddings and errors", async () => {
    const embeddings = new OpenAIEmbeddings({
      model: "tales",
      apiKey: "none",
      configuration: { baseURL: `${tales.url}/v1` },
    });
    expect((await embeddings.embedDocuments(["a wolf", "a king"])).map(({ length }) => length)).toEqual([192, 192]);
    await expect(model({ temperature: 9 }).invoke(question)).rejects.toMatchObject({ status: 400 });
  });
});
