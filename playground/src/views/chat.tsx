// Conversations: what was said, and all that can be done with it.

import { useEffect, useRef, useState } from "preact/hooks";
import type { ChatFormatName } from "rwkv";
import { chatFormat, say, writing } from "../chat-actions.js";
import { current, update } from "../conversation-store.js";
import { emptyConversation, pathOf } from "../conversation-tree.js";
import { engine, facts, isTaleTeller, model } from "../model-state.js";
import { ConversationList } from "../parts/conversation-list.js";
import { Message } from "../parts/message.js";
import { SettingsButton } from "../parts/settings-dialog.js";
import { systemPrompt, thinks } from "../settings.js";
import { texts } from "../texts/texts.js";

const formats: readonly ChatFormatName[] = ["world", "g1", "assistant", "bot", "pile", "raven"];

export function Chat() {
  const t = texts.value.chat;
  const conversation = current.value;
  const path = pathOf(conversation);
  const isWriting = writing.value?.conversation === conversation.id;
  const end = useRef<HTMLDivElement>(null);
  const last = path.at(-1);
  // The newest text stays in sight, unless the reader has scrolled away from it.
  const length = (last?.text.length ?? 0) + (last?.thought.length ?? 0);
  useEffect(() => {
    const distance = document.documentElement.scrollHeight - innerHeight - scrollY;
    if (isWriting && distance < 240) end.current?.scrollIntoView({ block: "end" });
  }, [length, isWriting]);
  useEffect(() => end.current?.scrollIntoView({ block: "end" }), [conversation.id, path.length]);
  return (
    <div class="chat">
      <div class="chat-head">
        <h1>{t.title}</h1>
        <button type="button" class="quiet" onClick={() => (current.value = emptyConversation(systemPrompt.value))}>
          {t.new}
        </button>
        <ConversationList />
        <SettingsButton>
          <ChatSettings />
        </SettingsButton>
      </div>
      {isTaleTeller.value && <p class="notice">{t.taleTeller}</p>}
      <ol class="messages" aria-label={t.title}>
        {path.map((message) => (
          <Message
            key={message.id}
            message={message}
            isLast={message === last}
            isWriting={isWriting && message === last}
          />
        ))}
      </ol>
      {path.length === 0 && <p class="empty">{t.empty}</p>}
      <Announcement isWriting={isWriting} />
      <div ref={end} class="end" />
      <Composer isWriting={isWriting} />
    </div>
  );
}

/** Said once when an answer begins, and once when it is complete: readers of a screen are not told every token. */
function Announcement({ isWriting }: { readonly isWriting: boolean }) {
  const t = texts.value.chat;
  const was = useRef(false);
  const hasEnded = was.current && !isWriting;
  useEffect(() => {
    was.current = isWriting || was.current;
  }, [isWriting]);
  return (
    <p class="hidden" role="status">
      {isWriting ? t.writing : hasEnded ? t.done : ""}
    </p>
  );
}

function Composer({ isWriting }: { readonly isWriting: boolean }) {
  const t = texts.value.chat;
  const [text, setText] = useState("");
  const field = useRef<HTMLTextAreaElement>(null);
  const canWrite = engine.value !== undefined && !writing.value;
  const send = () => {
    if (!canWrite || text.trim() === "") return;
    say(text);
    setText("");
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <label>
        <span class="hidden">{t.message}</span>
        <textarea
          ref={field}
          rows={1}
          placeholder={t.placeholder}
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
            event.preventDefault();
            send();
          }}
        />
      </label>
      {isWriting ? (
        <button type="button" onClick={() => writing.value?.stop()}>
          {texts.value.stop}
        </button>
      ) : (
        <button type="submit" class="primary" disabled={!canWrite || text.trim() === ""}>
          {t.send}
        </button>
      )}
    </form>
  );
}

function ChatSettings() {
  const t = texts.value.chat;
  const mayThink =
    model.value.kind === "server" ||
    ["g1", "assistant", "bot"].includes(chatFormat.value) ||
    facts.value?.format === "g1";
  return (
    <div class="controls">
      <label class="field">
        <span>{t.system}</span>
        <textarea
          rows={3}
          value={current.value.system}
          onInput={(event) => {
            systemPrompt.value = event.currentTarget.value;
            update({ ...current.value, system: event.currentTarget.value });
          }}
        />
        <small>{t.systemAbout}</small>
      </label>
      {model.value.kind === "local" && (
        <label>
          <span>{t.format}</span>
          <select
            value={chatFormat.value}
            onChange={(event) => (chatFormat.value = event.currentTarget.value as ChatFormatName | "auto")}
          >
            <option value="auto">
              {t.automatic} ({facts.value?.format})
            </option>
            {formats.map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
      )}
      {mayThink && (
        <label class="check">
          <input
            type="checkbox"
            checked={thinks.value}
            onChange={(event) => (thinks.value = event.currentTarget.checked)}
          />
          <span>{t.thinkFirst}</span>
        </label>
      )}
    </div>
  );
}
