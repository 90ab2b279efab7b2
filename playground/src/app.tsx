// The frame around the views: what is where, which model writes, language and colours.

import { signal } from "@preact/signals";
import type { FunctionComponent } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Announcer } from "./parts/announcer.js";
import { KeepingBars } from "./parts/keeping-bars.js";
import { isChoosing, LoadingBar, ModelButton, ModelDialog, WaitingBar } from "./parts/model-dialog.js";
import { droppedFiles } from "./parts/sources/source.js";
import { type Language, language, type Theme, theme } from "./settings.js";
import { texts } from "./texts/texts.js";
import { Bench } from "./views/bench.js";
import { Chat } from "./views/chat.js";
import { Complete } from "./views/complete.js";
import { Inside } from "./views/inside.js";
import { Start } from "./views/start.js";
import { Train } from "./views/train.js";

const views = {
  start: Start,
  chat: Chat,
  complete: Complete,
  inside: Inside,
  train: Train,
  bench: Bench,
} as const satisfies Record<string, FunctionComponent>;
export type ViewName = keyof typeof views;
const names = Object.keys(views) as ViewName[];

const viewInAddress = () => names.find((name) => `#${name}` === location.hash) ?? "start";
const view = signal<ViewName>(viewInAddress());
globalThis.addEventListener("hashchange", () => {
  if (location.hash === "#main") return; // the browser goes there
  view.value = viewInAddress();
  scrollTo(0, 0);
  // Readers of a screen begin with the new view.
  document.querySelector<HTMLElement>("main")?.focus({ preventScroll: true });
});

export function App() {
  const t = texts.value;
  const View = views[view.value];
  return (
    <DropArea>
      <a class="skip" href="#main">
        {t.skip}
      </a>
      <header class="top">
        <a class="brand" href="#start">
          RWKV
        </a>
        <ModelButton />
        <Choices />
      </header>
      <nav class="views" aria-label={t.nav.label}>
        <ul>
          {names.map((name) => (
            <li key={name}>
              <a href={`#${name}`} aria-current={name === view.value ? "page" : undefined}>
                {t.nav[name]}
              </a>
            </li>
          ))}
        </ul>
      </nav>
      <main id="main" tabIndex={-1}>
        <KeepingBars />
        <WaitingBar />
        <LoadingBar />
        <View />
      </main>
      <ModelDialog />
      <Announcer />
    </DropArea>
  );
}

function Choices() {
  const t = texts.value;
  return (
    <div class="choices">
      <label>
        <span class="hidden">{t.language}</span>
        <select value={language.value} onChange={(event) => (language.value = event.currentTarget.value as Language)}>
          <option value="en">English</option>
          <option value="zh" lang="zh-CN">
            中文
          </option>
        </select>
      </label>
      <label>
        <span class="hidden">{t.theme.label}</span>
        <select value={theme.value} onChange={(event) => (theme.value = event.currentTarget.value as Theme)}>
          <option value="system">{t.theme.system}</option>
          <option value="light">{t.theme.light}</option>
          <option value="dark">{t.theme.dark}</option>
        </select>
      </label>
    </div>
  );
}

/** Files may be dropped anywhere. */
function DropArea({ children }: { readonly children: preact.ComponentChildren }) {
  const [isOver, setOver] = useState(false);
  useEffect(() => {
    const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const over = (event: DragEvent) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      setOver(true);
    };
    const leave = (event: DragEvent) => {
      if (event.relatedTarget === null) setOver(false);
    };
    const drop = (event: DragEvent) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      setOver(false);
      droppedFiles.value = [...(event.dataTransfer?.files ?? [])];
      isChoosing.value = true;
    };
    const { body } = document;
    body.addEventListener("dragover", over);
    body.addEventListener("dragleave", leave);
    body.addEventListener("drop", drop);
    return () => {
      body.removeEventListener("dragover", over);
      body.removeEventListener("dragleave", leave);
      body.removeEventListener("drop", drop);
    };
  }, []);
  return (
    <>
      {children}
      {isOver && <div class="drop-hint">{texts.value.model.dropAnywhere}</div>}
    </>
  );
}
