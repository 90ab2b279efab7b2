// What a conversation is made of, whatever the format in which a model knows conversations.

import { OptionError } from "../errors.js";

/** A call of a tool that an assistant's message asks for. */
export interface ToolCall {
  readonly name: string;
  /** A value of JSON, by the tool's parameters. */
  readonly arguments: unknown;
}

/** A message of a conversation. */
export interface ChatMessage {
  /** Who says it: whoever sets the scene, the user, the model, or a tool that the model called. */
  readonly role: "system" | "user" | "assistant" | "tool";
  /** Its text; of a tool its output. */
  readonly content: string;
  /** What the assistant asks for; format "function_calling" has it. */
  readonly toolCalls?: readonly ToolCall[];
}

/** A tool that a model may call. */
export interface ChatTool {
  readonly name: string;
  readonly description?: string;
  /** A JSON schema of its arguments. */
  readonly parameters: object;
}

const roles: readonly unknown[] = ["system", "user", "assistant", "tool"];

/** @throws OptionError for no messages, and for what is not an array of them, which callers in JavaScript may pass */
export function checkMessages(messages: readonly ChatMessage[]): void {
  if (!Array.isArray(messages)) throw new OptionError("messages", messages, "an array of messages");
  if (messages.length === 0) throw new OptionError("messages", messages, "at least one message");
  for (const message of messages as readonly unknown[]) {
    if (typeof message !== "object" || message === null) throw new OptionError("messages", message, "objects");
    const { role, content, toolCalls } = message as Partial<ChatMessage>;
    if (!roles.includes(role)) throw new OptionError("messages", role, `messages with a role: ${roles.join(", ")}`);
    if (typeof content !== "string") throw new OptionError("messages", content, "messages with a string as content");
    const callsAreNamed = toolCalls === undefined || (Array.isArray(toolCalls) && toolCalls.every(hasName));
    if (!callsAreNamed) throw new OptionError("messages", toolCalls, "toolCalls with a name and arguments");
  }
}

/** @throws OptionError for what is not an array of tools */
export function checkTools(tools: readonly ChatTool[]): void {
  const isTool = (tool: unknown) => hasName(tool) && typeof (tool as Partial<ChatTool>).parameters === "object";
  if (!(Array.isArray(tools) && tools.every(isTool))) {
    throw new OptionError("tools", tools, "an array of tools, each with a name and parameters");
  }
}

function hasName(value: unknown): boolean {
  return typeof value === "object" && value !== null && typeof (value as { name?: unknown }).name === "string";
}

/** A text with the line ends and the edges that training data has. */
export function trimmedText(text: string): string {
  return text.replace(/\r\n?/g, "\n").trim();
}

/**
 * A text without blank lines, which end turns in the training data of most models, and without white space at its edges.
 * Lines of nothing but white space are blank, too.
 */
export function withoutBlankLines(text: string): string {
  return trimmedText(text).replace(/\n(?:[^\S\n]*\n)+/g, "\n");
}
