// A thread that encodes long texts (text-encoding.ts).

import { parentPort, workerData } from "node:worker_threads";
import { huggingFaceTokenizer } from "../tokenizers/hugging-face.js";
import { tokenizerOfTokens } from "../tokenizers/world.js";
import type { Encoded, TokenizerDefinition } from "./text-encoding.js";

const definition = workerData as TokenizerDefinition;
const tokenizer =
  definition.kind === "world"
    ? tokenizerOfTokens("the model's vocabulary", definition.tokens)
    : huggingFaceTokenizer("the model's tokenizer", definition.json);

parentPort?.on("message", ({ id, text }: { id: number; text: string }) => {
  try {
    const tokens = Int32Array.from(tokenizer.encode(text));
    parentPort?.postMessage({ id, tokens } satisfies Encoded, [tokens.buffer]);
  } catch (error) {
    parentPort?.postMessage({ id, error: (error as Error).message } satisfies Encoded);
  }
});
