// How conversations were written in the training data of each family of models.

import { basename } from "node:path";
import type { Model } from "../generation/model.js";

/** Names and opening of a conversation. Turns are "<name>: <text>", separated by a blank line. */
export interface ChatFormat {
  readonly user: string;
  readonly assistant: string;
  /** Read before the first turn. */
  readonly opening: string;
}

export const chatFormats = {
  /** Models trained on the Pile know conversations as transcripts; an opening sets the scene. */
  pile: {
    user: "User",
    assistant: "Bot",
    opening:
      "\nThe following is a conversation between a curious user and a helpful, friendly bot. The bot answers every question " +
      "in detail, and says so when it does not know.\n\n" +
      "User: Hello, can you tell me what a river is?\n\n" +
      "Bot: A river is a stream of fresh water that flows towards the sea, a lake or another river.\n\n",
  },
  /** Raven models were tuned on dialogues of Bob and Alice. */
  raven: { user: "Bob", assistant: "Alice", opening: "" },
  /** World models were tuned on dialogues of User and Assistant. */
  world: { user: "User", assistant: "Assistant", opening: "" },
} as const satisfies Record<string, ChatFormat>;

export type ChatFormatName = keyof typeof chatFormats;

/** The format that suits a model, by its tokenizer and its own name: that of a folder it lies in says nothing. */
export function chatFormatFor({ info, tokenizer }: Pick<Model, "info" | "tokenizer">): ChatFormatName {
  if (tokenizer.kind === "world") return "world";
  return /raven/i.test(basename(info.source)) ? "raven" : "pile";
}

/** What ends an answer: a blank line, or the user's next turn where the model leaves that line out. */
export function turnEnds(format: ChatFormat): readonly [blankLine: string, nextTurn: string] {
  return ["\n\n", `\n${format.user}:`];
}

/** The text of a user's turn, up to where the assistant's begins. */
export function turnText(format: ChatFormat, message: string): string {
  const flat = message
    .trim()
    .replaceAll("\r\n", "\n")
    .replace(/\n{2,}/g, "\n");
  return `${format.user}: ${flat}\n\n${format.assistant}:`;
}
