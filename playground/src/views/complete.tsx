// Texts that are continued, with what else the model would have written at each token; choosing that writes on from there.

import { signal } from "@preact/signals";
import { useState } from "preact/hooks";
import { engine, model } from "../model-state.js";
import { SettingsButton } from "../parts/settings-dialog.js";
import { TokenText } from "../parts/token-text.js";
import { useWriting } from "../parts/use-writing.js";
import type { WrittenToken } from "../protocol.js";
import { maxTokens, sampling } from "../settings.js";
import { speedText, texts } from "../texts/texts.js";

/** What is to be continued; other views set it. */
export const completePrompt = signal<string | undefined>(undefined);

export function Complete() {
  const t = texts.value;
  const writing = useWriting();
  const { tokens, isRunning, ending, error } = writing;
  const prompt = completePrompt.value ?? t.complete.example;
  /** The prompt that the tokens follow. */
  const [written, setWritten] = useState("");
  const [earlier, setEarlier] = useState<readonly (readonly WrittenToken[])[]>([]);
  const [shown, setShown] = useState(0);
  const request = { sampling: sampling.value, maxTokens: maxTokens.value };
  const begin = () => {
    setWritten(prompt);
    setEarlier([]);
    setShown(0);
    writing.write({ ...request, prompt, kept: [] });
  };
  const writeOn = (kept: readonly WrittenToken[]) => writing.write({ ...request, prompt: written, kept }, kept);
  /** Takes another token in place of one, and keeps the text as it was. */
  const fork = (at: number, id: number, text: string, probability: number) => {
    const before = tokens.slice(0, at);
    const replaced = tokens[at] as WrittenToken;
    const all = [...earlier];
    all[shown] = tokens;
    setEarlier(all);
    setShown(all.length);
    writeOn([...before, { ...replaced, id, text, probability }]);
  };
  const showBranch = (index: number) => {
    const all = [...earlier];
    all[shown] = tokens;
    setEarlier(all);
    setShown(index);
    writing.show(all[index] ?? []);
  };
  const branches = Math.max(earlier.length, shown + 1);
  const isReady = engine.value !== undefined;
  return (
    <div class="complete">
      <h1>{t.complete.title}</h1>
      <p class="lead">{t.complete.lead}</p>
      {model.value.kind === "server" && <p class="note">{t.complete.remote}</p>}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (!isRunning) begin();
        }}
      >
        <label class="field">
          <span>{t.complete.prompt}</span>
          <textarea
            rows={3}
            value={prompt}
            onInput={(event) => (completePrompt.value = event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && isReady && !isRunning) begin();
            }}
          />
        </label>
        <div class="row">
          {isRunning ? (
            <button type="button" onClick={writing.stop}>
              {t.stop}
            </button>
          ) : (
            <button type="submit" class="primary" disabled={!isReady}>
              {t.complete.write}
            </button>
          )}
          {!isRunning && tokens.length > 0 && (
            <button type="button" class="quiet" disabled={!isReady} onClick={() => writeOn(tokens)}>
              {t.complete.more}
            </button>
          )}
          <SettingsButton />
          {branches > 1 && !isRunning && (
            <span class="versions">
              <button
                type="button"
                class="quiet icon"
                aria-label={t.complete.previous}
                disabled={shown === 0}
                onClick={() => showBranch(shown - 1)}
              >
                ‹
              </button>
              <span>{t.complete.branches(shown + 1, branches)}</span>
              <button
                type="button"
                class="quiet icon"
                aria-label={t.complete.next}
                disabled={shown >= branches - 1}
                onClick={() => showBranch(shown + 1)}
              >
                ›
              </button>
            </span>
          )}
        </div>
      </form>
      {error !== undefined && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
      {(tokens.length > 0 || isRunning) && (
        <section class="card" aria-label={t.complete.text}>
          <TokenText prompt={written} tokens={tokens} isWriting={isRunning} onChoose={fork} />
        </section>
      )}
      <p class="note" role="status">
        {ending && !isRunning && t.chat.figures(ending.generatedTokens, speedText(ending.tokensPerSecond))}
        {ending?.reason === "length" && !isRunning && ` · ${t.chat.cut}`}
      </p>
    </div>
  );
}
