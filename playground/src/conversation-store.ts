// Conversations, kept in this browser's database: they may be many and long, so not in localStorage.

import { signal } from "@preact/signals";
import { createStore, del, entries, set, type UseStore } from "idb-keyval";
import { type Conversation, emptyConversation } from "./conversation-tree.js";
import { systemPrompt } from "./settings.js";

/** All of them, the one that was changed last first. */
export const conversations = signal<readonly Conversation[]>([]);
export const current = signal<Conversation>(emptyConversation(systemPrompt.peek()));

let store: UseStore | undefined;

/** Reads what was kept. Where a browser refuses, conversations live as long as the page. */
export async function openStore(): Promise<void> {
  try {
    store = createStore("rwkv-playground", "conversations");
    const kept = await entries<string, Conversation>(store);
    const known = new Set(conversations.peek().map(({ id }) => id));
    const all = [...conversations.peek(), ...kept.map(([, one]) => one).filter(({ id }) => !known.has(id))];
    conversations.value = all.sort((a, b) => b.changed - a.changed);
  } catch {
    store = undefined;
  }
}

/** Shows a conversation as it is now, and writes it soon. */
export function update(conversation: Conversation): void {
  if (current.peek().id === conversation.id) current.value = conversation;
  const others = conversations.peek().filter(({ id }) => id !== conversation.id);
  if (conversation.leaf !== undefined) conversations.value = [conversation, ...others];
  schedule(conversation);
}

const waiting = new Map<string, Conversation>();
let timer: ReturnType<typeof setTimeout> | undefined;

/** A text that streams changes many times a second. */
function schedule(conversation: Conversation): void {
  waiting.set(conversation.id, conversation);
  timer ??= setTimeout(flush, 400);
}

export function flush(): void {
  clearTimeout(timer);
  timer = undefined;
  for (const one of waiting.values()) {
    if (store && one.leaf !== undefined) set(one.id, one, store).catch(() => {});
  }
  waiting.clear();
}
globalThis.addEventListener("pagehide", flush);

export function open(conversation: Conversation): void {
  current.value = conversation;
}

export function remove(id: string): void {
  waiting.delete(id);
  conversations.value = conversations.peek().filter((one) => one.id !== id);
  if (store) del(id, store).catch(() => {});
  if (current.peek().id === id) current.value = emptyConversation(systemPrompt.peek());
}

export function add(all: readonly Conversation[]): void {
  for (const one of all) update(one);
  const [first] = all;
  if (first) current.value = first;
}
