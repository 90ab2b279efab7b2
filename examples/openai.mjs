// The server with OpenAI's client: a stream, an object of a schema, a tool. npm install openai zod
// First: npx rwkv serve

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: `${process.env.RWKV_URL ?? "http://127.0.0.1:8080"}/v1`, apiKey: "none" });
const model = process.env.RWKV_MODEL ?? "rwkv-tales";
const messages = [{ role: "user", content: "Tell me of a wolf" }];

const stream = await client.chat.completions.create({ model, messages, max_tokens: 60, stream: true });
for await (const { choices } of stream) process.stdout.write(choices[0]?.delta.content ?? "");
console.log();

const animal = z.object({ animal: z.enum(["wolf", "fox", "bear"]), legs: z.int().min(0).max(8) });
const parsed = await client.chat.completions.parse({
  model,
  messages,
  response_format: zodResponseFormat(animal, "animal"),
});
console.log(parsed.choices[0].message.parsed);

const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather in a city",
    parameters: {
      type: "object",
      properties: { city: { type: "string", enum: ["Paris", "Rome"] } },
      required: ["city"],
      additionalProperties: false,
    },
  },
};
const called = await client.chat.completions.create({ model, messages, tools: [weather], tool_choice: "required" });
for (const { function: call } of called.choices[0].message.tool_calls ?? []) console.log(call.name, call.arguments);
