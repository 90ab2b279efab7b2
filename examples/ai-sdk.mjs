// The server with the AI SDK: a stream, an object of a schema, vectors. npm install ai @ai-sdk/openai-compatible zod
// First: npx rwkv serve

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, Output, streamText } from "ai";
import { z } from "zod";

const rwkv = createOpenAICompatible({
  name: "rwkv",
  baseURL: `${process.env.RWKV_URL ?? "http://127.0.0.1:8080"}/v1`,
  supportsStructuredOutputs: true,
});
const name = process.env.RWKV_MODEL ?? "rwkv-tales";
const model = rwkv(name);

const { textStream } = streamText({ model, prompt: "Tell me of a wolf", maxOutputTokens: 60 });
for await (const text of textStream) process.stdout.write(text);
console.log();

const schema = z.object({ animal: z.enum(["wolf", "fox", "bear"]), legs: z.int().min(0).max(8) });
const { output } = await generateText({ model, prompt: "Which animal is it?", output: Output.object({ schema }) });
console.log(output);

const values = ["A wolf in the forest", "A king in his castle"];
const { embeddings } = await embedMany({ model: rwkv.embeddingModel(name), values });
console.log(embeddings.map(({ length }) => length));
