// A conversation as a tree: each message follows another one, and those that follow the same one are versions of each other. What is shown
// is a path from the root to a leaf. All functions give a new conversation.

import type { Ending } from "./protocol.js";

export interface TreeMessage {
  readonly id: string;
  /** undefined for a first message. */
  readonly parent: string | undefined;
  readonly role: "user" | "assistant";
  readonly text: string;
  /** What the model thought before it answered. */
  readonly thought: string;
  /** As the model wrote it, so that it can be continued. */
  readonly raw: string;
  /** undefined while it is written, and for what users say. */
  readonly ending?: Ending | undefined;
  readonly error?: string | undefined;
}

export interface Conversation {
  readonly id: string;
  readonly title: string;
  readonly system: string;
  readonly messages: Readonly<Record<string, TreeMessage>>;
  /** The last message of the path that is shown. */
  readonly leaf: string | undefined;
  /** Milliseconds since 1970. */
  readonly changed: number;
}

export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(9)), (byte) => byte.toString(36).padStart(2, "0")).join("");
}

export function emptyConversation(system: string): Conversation {
  return { id: newId(), title: "", system, messages: {}, leaf: undefined, changed: Date.now() };
}

/** The messages that are shown, the first one first. */
export function pathOf({ messages, leaf }: Conversation, to: string | undefined = leaf): TreeMessage[] {
  const path: TreeMessage[] = [];
  for (let at = to; at !== undefined; at = messages[at]?.parent) {
    const message = messages[at];
    if (!message || path.includes(message)) break;
    path.unshift(message);
  }
  return path;
}

/** A message and its versions: all that follow the same message, in the order in which they were made. */
export function versionsOf({ messages }: Conversation, { parent, role }: TreeMessage): TreeMessage[] {
  return Object.values(messages).filter((other) => other.parent === parent && other.role === role);
}

/** Adds a message behind another one and shows it. */
export function withMessage(conversation: Conversation, message: TreeMessage): Conversation {
  const title = conversation.title || (message.role === "user" ? message.text.slice(0, 80) : "");
  return {
    ...conversation,
    title,
    messages: { ...conversation.messages, [message.id]: message },
    leaf: message.id,
    changed: Date.now(),
  };
}

export function withChange(conversation: Conversation, id: string, change: Partial<TreeMessage>): Conversation {
  const message = conversation.messages[id];
  if (!message) return conversation;
  return {
    ...conversation,
    messages: { ...conversation.messages, [id]: { ...message, ...change } },
    changed: Date.now(),
  };
}

/** Shows another version of a message, and what was last said behind it. */
export function showing(conversation: Conversation, id: string): Conversation {
  const all = Object.values(conversation.messages);
  let leaf = id;
  for (
    let next = all.findLast(({ parent }) => parent === leaf);
    next;
    next = all.findLast(({ parent }) => parent === leaf)
  )
    leaf = next.id;
  return { ...conversation, leaf, changed: Date.now() };
}

/** A conversation of its own that has all up to a message. Its states are those of the other one, so nothing is read again. */
export function forkedAt(conversation: Conversation, id: string): Conversation {
  const path = pathOf(conversation, id);
  return {
    ...conversation,
    id: newId(),
    messages: Object.fromEntries(path.map((message) => [message.id, message])),
    leaf: id,
    changed: Date.now(),
  };
}

/** As text for people. */
export function toMarkdown(conversation: Conversation): string {
  const parts = pathOf(conversation).map(
    ({ role, text }) => `## ${role === "user" ? "User" : "Assistant"}\n\n${text.trim()}\n`,
  );
  const system = conversation.system ? `> ${conversation.system.replaceAll("\n", "\n> ")}\n\n` : "";
  return `# ${conversation.title || "Conversation"}\n\n${system}${parts.join("\n")}`;
}

/** Conversations in a file that this page exported. @throws Error for another one */
export function fromJson(text: string): Conversation[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error("expected JSON with conversations that this page exported, found other text");
  }
  const all = (value as { conversations?: unknown } | null)?.conversations;
  if (!Array.isArray(all)) throw new Error('expected JSON with "conversations", as this page exports it');
  return all.map((one, i) => checked(one, i));
}

function checked(value: unknown, index: number): Conversation {
  const fail = (what: string) => new Error(`conversation ${index + 1}: expected ${what}`);
  const given = value as Partial<Conversation> | null;
  if (typeof given !== "object" || given === null) throw fail("an object");
  const { id, title, system = "", leaf, messages } = given;
  if (typeof id !== "string" || typeof title !== "string" || typeof system !== "string")
    throw fail("id, title and system to be texts");
  if (typeof messages !== "object" || messages === null) throw fail("messages");
  const own: Record<string, TreeMessage> = {};
  for (const [key, message] of Object.entries(messages)) {
    const { role, text, thought = "", raw = text, parent } = (message ?? {}) as Partial<TreeMessage>;
    if (
      (role !== "user" && role !== "assistant") ||
      typeof text !== "string" ||
      typeof raw !== "string" ||
      typeof thought !== "string"
    ) {
      throw fail("messages with role and text");
    }
    if (parent !== undefined && typeof parent !== "string") throw fail("parents that are names of messages");
    own[key] = { id: key, parent, role, text, thought, raw };
  }
  return {
    id: newId(),
    title,
    system,
    messages: own,
    leaf: typeof leaf === "string" && own[leaf] ? leaf : Object.keys(own).at(-1),
    changed: Date.now(),
  };
}

export function toJson(conversations: readonly Conversation[]): string {
  return JSON.stringify({ format: "rwkv-playground-1", conversations }, undefined, 1);
}
