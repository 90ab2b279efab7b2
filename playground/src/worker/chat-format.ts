// The form in which the loaded model knows conversations.

import { type ChatFormatName, chatFormatFor } from "rwkv";
import type { LoadedModel } from "./loaded-model.js";

/** Formats whose models think before they answer. */
const thinking: readonly ChatFormatName[] = ["g1", "assistant", "bot", "function_calling"];

export function formatOfLoaded(
  loaded: LoadedModel,
  wanted: ChatFormatName | "auto",
): { readonly name: ChatFormatName; readonly thinks: boolean } {
  const name = wanted === "auto" ? (loaded.format ?? chatFormatFor(loaded.model)) : wanted;
  return { name, thinks: thinking.includes(name) };
}
