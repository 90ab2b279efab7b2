// All formats by name, and which one a model knows.

import { basename } from "#platform/files";
import type { ModelInfo } from "../generation/model.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import type { ChatFormat } from "./chat-format.js";
import { bot, functionCalling } from "./marked-turns.js";
import { assistant, g1, pile, raven, world } from "./transcripts.js";

export const chatFormats = {
  pile,
  raven,
  world,
  g1,
  assistant,
  bot,
  function_calling: functionCalling,
} as const satisfies Record<string, ChatFormat>;

/** The name of a way to write conversations; docs/chat.md describes them. */
export type ChatFormatName = keyof typeof chatFormats;

/** What the format of a model is known by. */
export interface ChatModel {
  readonly info: Pick<ModelInfo, "source" | "metadata">;
  readonly tokenizer: Pick<Tokenizer, "kind">;
}

/** Entries of files' metadata in which a model has its name: of GGUF, and of safetensors. */
const nameEntries = ["general.name", "general.basename", "modelspec.title", "name"];

/** Where GGUF files have the template of conversations; those of models that think have its tag. */
const templateEntry = "tokenizer.chat_template";

/**
 * The format that suits a model by its vocabulary and its own name, in its file or of its file; the name of a folder that it lies in
 * says nothing.
 */
export function chatFormatFor({ info, tokenizer }: ChatModel): ChatFormatName {
  const { source, metadata } = info;
  const names = [basename(source), ...nameEntries.flatMap((entry) => metadata[entry] ?? [])];
  const isNamed = (pattern: RegExp) => names.some((name) => pattern.test(name));
  if (tokenizer.kind === "world" && (metadata[templateEntry] ?? "").includes("<think")) return "g1";
  if (tokenizer.kind === "world") return isNamed(/(^|[^a-z0-9])g[01][a-z]?\d?([^a-z0-9]|$)/i) ? "g1" : "world";
  return isNamed(/raven/i) ? "raven" : "pile";
}
