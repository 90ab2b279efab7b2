// What one can do in a conversation: say something, have it answered again, change a question, continue an answer, stop.

import { signal } from "@preact/signals";
import type { ChatFormatName } from "rwkv";
import { conversations, current, update } from "./conversation-store.js";
import { type Conversation, newId, pathOf, type TreeMessage, withChange, withMessage } from "./conversation-tree.js";
import { engine } from "./model-state.js";
import { maxTokens, sampling, thinks } from "./settings.js";

/** The answer that is being written, if any. */
export const writing = signal<{ readonly conversation: string; readonly stop: () => void } | undefined>(undefined);
export const chatFormat = signal<ChatFormatName | "auto">("auto");

/** Says something behind a message, by default behind the last one; with another one's parent it is a version of that. */
export function say(text: string, parent: string | undefined = current.value.leaf): void {
  if (writing.value || text.trim() === "") return;
  const message: TreeMessage = { id: newId(), parent, role: "user", text, thought: "", raw: "" };
  const conversation = withMessage(current.value, message);
  update(conversation);
  void answer(conversation, message.id);
}

/** Answers a question anew. */
export function retry({ parent }: TreeMessage): void {
  if (!writing.value && parent !== undefined) void answer(current.value, parent);
}

/** Writes on where an answer ended. */
export function carryOn(message: TreeMessage): void {
  if (!writing.value && message.parent !== undefined) void answer(current.value, message.parent, message);
}

async function answer(asked: Conversation, question: string, begun?: TreeMessage): Promise<void> {
  const own = engine.value;
  if (!own) return;
  const controller = new AbortController();
  writing.value = { conversation: asked.id, stop: () => controller.abort() };
  const id = begun?.id ?? newId();
  let conversation = asked;
  let { text, thought, raw } = begun ?? { text: "", thought: "", raw: "" };
  const messages = [
    ...(asked.system ? [{ role: "system" as const, content: asked.system }] : []),
    ...pathOf(asked, question).map((message) => ({ role: message.role, content: message.text })),
  ];
  if (begun) conversation = withChange(conversation, id, { ending: undefined, error: undefined });
  else conversation = withMessage(conversation, { id, parent: question, role: "assistant", text, thought, raw });
  update(conversation);
  let frame = 0;
  const change = (more: Partial<TreeMessage> = {}) => {
    cancelAnimationFrame(frame);
    frame = 0;
    // It may be shown otherwise by now, or be gone.
    const now = conversations.value.find((one) => one.id === asked.id);
    if (now) update(withChange(now, id, { text, thought, raw, ...more }));
  };
  try {
    const request = {
      messages,
      begun: raw,
      format: chatFormat.value,
      thinks: thinks.value,
      sampling: sampling.value,
      maxTokens: maxTokens.value,
    };
    const ending = await own.chat(request, {
      signal: controller.signal,
      onPiece(piece) {
        text += piece.text;
        thought += piece.thought;
        raw += piece.raw;
        frame ||= requestAnimationFrame(() => change());
      },
    });
    change({ ending });
  } catch (error) {
    const isStopped = controller.signal.aborted;
    change(
      isStopped
        ? { ending: { reason: "aborted", generatedTokens: 0, tokensPerSecond: 0 } }
        : { error: (error as Error).message },
    );
  } finally {
    writing.value = undefined;
  }
}
