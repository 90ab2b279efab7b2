// One message: its text, its versions, and what can be done with it.

import { useState } from "preact/hooks";
import { carryOn, retry, say, writing } from "../chat-actions.js";
import { add, current, update } from "../conversation-store.js";
import { forkedAt, showing, type TreeMessage, versionsOf } from "../conversation-tree.js";
import { engine } from "../model-state.js";
import { speedText, texts } from "../texts/texts.js";
import { CopyButton } from "./copy-button.js";
import { Markdown } from "./markdown.js";

interface MessageProps {
  readonly message: TreeMessage;
  readonly isLast: boolean;
  readonly isWriting: boolean;
}

export function Message({ message, isLast, isWriting }: MessageProps) {
  const t = texts.value.chat;
  const [isEdited, setEdited] = useState(false);
  const { role, text, thought, error } = message;
  return (
    <li class={`message ${role}`} data-role={role}>
      <h2 class="who">{role === "user" ? t.you : t.assistant}</h2>
      {thought !== "" && (
        <details class="thought">
          <summary>{isWriting && text === "" ? t.thinking : t.thought}</summary>
          <p>{thought}</p>
        </details>
      )}
      {isEdited ? (
        <Editor message={message} onClose={() => setEdited(false)} />
      ) : (
        <div class={`text ${isWriting ? "is-writing" : ""}`}>
          {role === "user" ? <p class="said">{text}</p> : <Markdown text={text} />}
        </div>
      )}
      {error !== undefined && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
      {!isEdited && !isWriting && <Actions message={message} isLast={isLast} onEdit={() => setEdited(true)} />}
    </li>
  );
}

function Editor({ message, onClose }: { readonly message: TreeMessage; readonly onClose: () => void }) {
  const t = texts.value;
  const [text, setText] = useState(message.text);
  return (
    <form
      class="editor"
      onSubmit={(event) => {
        event.preventDefault();
        onClose();
        say(text, message.parent);
      }}
    >
      <textarea
        aria-label={t.chat.edit}
        rows={3}
        value={text}
        ref={(field) => {
          if (field && document.activeElement !== field) field.focus();
        }}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Escape") onClose();
        }}
      />
      <div class="row">
        <button type="submit" class="primary" disabled={text.trim() === ""}>
          {t.chat.save}
        </button>
        <button type="button" class="quiet" onClick={onClose}>
          {t.cancel}
        </button>
      </div>
    </form>
  );
}

function Actions({
  message,
  isLast,
  onEdit,
}: {
  readonly message: TreeMessage;
  readonly isLast: boolean;
  readonly onEdit: () => void;
}) {
  const t = texts.value;
  const conversation = current.value;
  const versions = versionsOf(conversation, message);
  const at = versions.findIndex(({ id }) => id === message.id);
  const isBusy = writing.value !== undefined || engine.value === undefined;
  const show = (index: number) => update(showing(conversation, (versions[index] as TreeMessage).id));
  const { ending } = message;
  return (
    <div class="actions">
      {versions.length > 1 && (
        <span class="versions">
          <button
            type="button"
            class="quiet icon"
            aria-label={t.chat.previous}
            disabled={isBusy || at === 0}
            onClick={() => show(at - 1)}
          >
            ‹
          </button>
          <span aria-label={t.chat.versions(at + 1, versions.length)} role="img">
            {at + 1}/{versions.length}
          </span>
          <button
            type="button"
            class="quiet icon"
            aria-label={t.chat.next}
            disabled={isBusy || at === versions.length - 1}
            onClick={() => show(at + 1)}
          >
            ›
          </button>
        </span>
      )}
      {message.role === "user" ? (
        <button type="button" class="quiet" disabled={isBusy} onClick={onEdit}>
          {t.chat.edit}
        </button>
      ) : (
        <>
          <button type="button" class="quiet" disabled={isBusy} onClick={() => retry(message)}>
            {t.chat.retry}
          </button>
          {isLast && (
            <button type="button" class="quiet" disabled={isBusy} onClick={() => carryOn(message)}>
              {t.chat.carryOn}
            </button>
          )}
        </>
      )}
      <button
        type="button"
        class="quiet"
        title={t.chat.forked}
        disabled={isBusy}
        onClick={() => add([forkedAt(conversation, message.id)])}
      >
        {t.chat.fork}
      </button>
      <CopyButton text={message.text} />
      {ending && (
        <span class="note figures">
          {ending.reason === "aborted" && `${t.chat.stopped} `}
          {ending.reason === "length" && `${t.chat.cut} · `}
          {ending.generatedTokens > 0 && t.chat.figures(ending.generatedTokens, speedText(ending.tokensPerSecond))}
          {ending.promptTokens !== undefined &&
            (ending.reusedTokens ?? 0) > 0 &&
            ` · ${t.chat.reused(ending.promptTokens - (ending.reusedTokens as number), ending.promptTokens)}`}
        </span>
      )}
    </div>
  );
}
