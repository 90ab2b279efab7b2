// The text of a record of JSON, and which parts of it a model learns. Records with roles become the form that RWKV's World models
// know conversations in, which `rwkv chat` writes too:
//
//   User: ...
//
//   Assistant: ...
//
// Turns are separated by a blank line, so blank lines within one become line breaks. What the assistant says is learned, with
// the blank line that ends it; it is cut from what stands before where a session that reads a prompt would cut it.

import { withoutBlankLines } from "../chat/messages.js";

/** The forms of records that are known, for messages. */
export const recordForms =
  'an object with a string "text", with "messages" (each with a role and a content), or with "instruction" and "output"';

/** Whose turns are learned. */
const learnedName = "Assistant";

const namesOfRoles: Readonly<Record<string, string>> = {
  system: "System",
  user: "User",
  human: "User",
  assistant: learnedName,
};

/** A part of a text. */
export interface TextPart {
  readonly text: string;
  /** Whether a model is to learn to write it; else it only reads it. */
  readonly learned: boolean;
}

/** The parts of a record's text in order, or in words what was expected of it. */
export function recordText(value: unknown): { readonly parts: readonly TextPart[] } | { readonly expected: string } {
  if (!isObject(value)) return { expected: recordForms };
  const { text, messages, instruction, input, output } = value;
  if (text !== undefined) {
    return typeof text === "string"
      ? { parts: [{ text: wellFormed(text), learned: true }] }
      : { expected: `a string "text", found ${kindOf(text)}` };
  }
  if (messages !== undefined) return conversation(messages);
  if (instruction === undefined) return { expected: recordForms };
  if (typeof instruction !== "string" || typeof output !== "string") {
    return { expected: 'strings "instruction" and "output"' };
  }
  if (input !== undefined && input !== null && typeof input !== "string") {
    return { expected: `a string "input", found ${kindOf(input)}` };
  }
  return {
    parts: turns([
      ["User", input ? `${instruction}\n${input}` : instruction],
      [learnedName, output],
    ]),
  };
}

function conversation(messages: unknown): ReturnType<typeof recordText> {
  if (!Array.isArray(messages) || messages.length === 0) return { expected: '"messages" to be an array of messages' };
  const list: [name: string, content: string][] = [];
  for (const [i, message] of messages.entries()) {
    const { role, content } = isObject(message) ? message : {};
    const name = typeof role === "string" && Object.hasOwn(namesOfRoles, role) ? namesOfRoles[role] : undefined;
    if (name === undefined) {
      const found = typeof role === "string" ? JSON.stringify(role.slice(0, 40)) : kindOf(role);
      return { expected: `message ${i + 1} to have the role ${Object.keys(namesOfRoles).join(", ")}, found ${found}` };
    }
    const text = contentText(content);
    if (text === undefined)
      return { expected: `message ${i + 1} to have a string "content", found ${kindOf(content)}` };
    list.push([name, text]);
  }
  return { parts: turns(list) };
}

/** The text of a message's content: a string, or parts of text, as in OpenAI's API. */
function contentText(content: unknown): string | undefined {
  if (typeof content === "string") return content;
  if (!Array.isArray(content) || content.length === 0) return undefined;
  const parts = content.map((part) => (isObject(part) && part["type"] === "text" ? part["text"] : undefined));
  return parts.every((part) => typeof part === "string") ? parts.join("") : undefined;
}

function turns(list: readonly (readonly [name: string, content: string])[]): TextPart[] {
  const parts: TextPart[] = [];
  list.forEach(([name, content], i) => {
    const text = wellFormed(withoutBlankLines(content)) + (i < list.length - 1 ? "\n\n" : "");
    if (name === learnedName) parts.push({ text: `${name}:`, learned: false }, { text: ` ${text}`, learned: true });
    else parts.push({ text: `${name}: ${text}`, learned: false });
  });
  return parts;
}

/** JSON can hold halves of characters, UTF-8 cannot. */
function wellFormed(text: string): string {
  return text.replace(/\p{Surrogate}/gu, "\ufffd");
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function kindOf(value: unknown): string {
  if (value === undefined) return "none";
  if (value === null) return "null";
  return Array.isArray(value) ? "an array" : typeof value === "object" ? "an object" : `a ${typeof value}`;
}
