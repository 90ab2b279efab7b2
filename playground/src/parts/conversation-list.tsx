// All conversations that are kept: to open, delete, save to files and load from them.

import { useRef, useState } from "preact/hooks";
import { writing } from "../chat-actions.js";
import { add, conversations, current, open, remove } from "../conversation-store.js";
import { fromJson, toJson, toMarkdown } from "../conversation-tree.js";
import { download } from "../downloads.js";
import { texts } from "../texts/texts.js";
import { Dialog } from "./dialog.js";

export function ConversationList() {
  const [isOpen, setOpen] = useState(false);
  const [error, setError] = useState<string | undefined>(undefined);
  const file = useRef<HTMLInputElement>(null);
  const t = texts.value.chat;
  const load = async (chosen: File | undefined) => {
    if (!chosen) return;
    try {
      if (chosen.size > 64 * 2 ** 20) throw new Error(`${chosen.name}: expected at most 64 MB, found more`);
      add(fromJson(await chosen.text()));
      setOpen(false);
    } catch (reason) {
      setError(`${chosen.name}: ${(reason as Error).message}`);
    }
  };
  const close = () => {
    setOpen(false);
    setError(undefined);
  };
  const name = current.value.title.slice(0, 40).replace(/[^\p{L}\p{N}]+/gu, "-") || "conversation";
  return (
    <>
      <button type="button" class="quiet" onClick={() => setOpen(true)}>
        {t.all}
      </button>
      <Dialog title={t.all} isOpen={isOpen} onClose={close}>
        {conversations.value.length === 0 && <p class="note">{t.none}</p>}
        <ul class="conversations">
          {conversations.value.map((one) => (
            <li key={one.id}>
              <button
                type="button"
                class="quiet title"
                aria-current={one.id === current.value.id}
                onClick={() => {
                  open(one);
                  setOpen(false);
                }}
              >
                <span>{one.title || t.untitled}</span>
                <small>{new Date(one.changed).toLocaleString(document.documentElement.lang)}</small>
              </button>
              <button
                type="button"
                class="quiet icon"
                aria-label={t.deleteThis(one.title)}
                disabled={writing.value?.conversation === one.id}
                onClick={() => confirm(t.deleteAsk(one.title || t.untitled)) && remove(one.id)}
              >
                ✕
              </button>
            </li>
          ))}
        </ul>
        {error !== undefined && (
          <p class="error" role="alert">
            {error}
          </p>
        )}
        <div class="row">
          <button type="button" onClick={() => file.current?.click()}>
            {t.import}
          </button>
          <input
            ref={file}
            class="hidden"
            type="file"
            accept=".json,application/json"
            tabIndex={-1}
            aria-label={t.import}
            onChange={(event) => {
              void load(event.currentTarget.files?.[0]);
              event.currentTarget.value = "";
            }}
          />
          <button
            type="button"
            disabled={conversations.value.length === 0}
            onClick={() => download("conversations.json", toJson(conversations.value), "application/json")}
          >
            {t.exportAll}
          </button>
          <button
            type="button"
            class="quiet"
            disabled={current.value.leaf === undefined}
            onClick={() => download(`${name}.md`, toMarkdown(current.value), "text/markdown")}
          >
            {t.exportMarkdown}
          </button>
          <button
            type="button"
            class="quiet"
            disabled={current.value.leaf === undefined}
            onClick={() => download(`${name}.json`, toJson([current.value]), "application/json")}
          >
            {t.exportJson}
          </button>
        </div>
      </Dialog>
    </>
  );
}
