// The server with LangChain: a stream, an object of a schema, vectors. npm install @langchain/openai @langchain/core zod
// First: npx rwkv serve

import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { z } from "zod";

const configuration = { baseURL: `${process.env.RWKV_URL ?? "http://127.0.0.1:8080"}/v1` };
const name = process.env.RWKV_MODEL ?? "rwkv-tales";
const model = new ChatOpenAI({ model: name, apiKey: "none", maxTokens: 60, configuration });

for await (const { text } of await model.stream("Tell me of a wolf")) process.stdout.write(text);
console.log();

const animal = z.object({ animal: z.enum(["wolf", "fox", "bear"]), legs: z.int().min(0).max(8) });
console.log(
  await model.withStructuredOutput(animal, { name: "animal", method: "jsonSchema" }).invoke("Which animal is it?"),
);

const embeddings = new OpenAIEmbeddings({ model: name, apiKey: "none", configuration });
console.log((await embeddings.embedQuery("A wolf in the forest")).length);
