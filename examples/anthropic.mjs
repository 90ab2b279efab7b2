// The server with Anthropic's client: a stream, a tool. npm install @anthropic-ai/sdk
// First: npx rwkv serve

import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.env.RWKV_URL ?? "http://127.0.0.1:8080", apiKey: "none" });
const model = process.env.RWKV_MODEL ?? "rwkv-tales";
const messages = [{ role: "user", content: "Tell me of a wolf" }];

const stream = client.messages.stream({ model, max_tokens: 60, system: "You tell tales.", messages });
stream.on("text", (text) => process.stdout.write(text));
const { usage } = await stream.finalMessage();
console.log(`\n${usage.output_tokens} tokens`);

const tool = {
  name: "get_weather",
  description: "The weather in a city",
  input_schema: {
    type: "object",
    properties: { city: { type: "string", enum: ["Paris", "Rome"] } },
    required: ["city"],
    additionalProperties: false,
  },
};
const { content } = await client.messages.create({
  model,
  max_tokens: 200,
  messages,
  tools: [tool],
  tool_choice: { type: "tool", name: "get_weather" },
});
for (const block of content) if (block.type === "tool_use") console.log(block.name, block.input);
