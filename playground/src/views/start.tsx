// The first view: a tale is being told at once, and what else there is.

import { useEffect } from "preact/hooks";
import { engine, facts, isTaleTeller, model } from "../model-state.js";
import { useWriting } from "../parts/use-writing.js";
import { byteText, countText, speedText, texts } from "../texts/texts.js";
import { completePrompt } from "./complete.js";

const tale = { temperature: 0.8, topP: 0.8, topK: 0, presencePenalty: 0.2, frequencyPenalty: 0.2, penaltyDecay: 0.99 };

export function Start() {
  const t = texts.value;
  const writing = useWriting();
  const { write, stop, isRunning, tokens, ending, error } = writing;
  const tell = (how?: { isUnasked: boolean }) =>
    write({ prompt: t.start.begins, kept: [], sampling: tale, maxTokens: 180 }, [], how);
  const own = engine.value;
  const isReady = own !== undefined;
  // Another model tells another tale.
  useEffect(() => {
    if (own) tell({ isUnasked: true });
    else stop();
  }, [own]);
  const text = t.start.begins + tokens.map((token) => token.text).join("");
  return (
    <div class="start">
      <h1>{t.start.title}</h1>
      <p class="lead">{model.value.kind === "server" ? t.start.leadServer : t.start.lead}</p>
      <section class="card tale" aria-label={t.start.tale}>
        <p class={`story ${isRunning ? "is-writing" : ""}`} data-testid="tale">
          {text}
        </p>
        {error !== undefined && (
          <p class="error" role="alert">
            {error}
          </p>
        )}
        <div class="row">
          {isRunning ? (
            <button type="button" onClick={stop}>
              {t.stop}
            </button>
          ) : (
            <button type="button" class="primary" disabled={!isReady} onClick={() => tell()}>
              {t.start.another}
            </button>
          )}
          <button
            type="button"
            class="quiet"
            onClick={() => {
              completePrompt.value = text;
              location.hash = "#complete";
            }}
          >
            {t.start.carryOn}
          </button>
          <span class="note" role="status">
            {ending &&
              ending.tokensPerSecond > 0 &&
              t.chat.figures(ending.generatedTokens, speedText(ending.tokensPerSecond))}
          </span>
        </div>
      </section>
      <Facts />
      <h2>{t.start.tries}</h2>
      <ul class="tries">
        {(["chat", "complete", "inside", "train", "bench"] as const).map((name) => (
          <li key={name}>
            <a href={`#${name}`}>{t.nav[name]}</a>
            <span>{t.start[name]}</span>
          </li>
        ))}
      </ul>
    </div>
  );
}

function Facts() {
  const t = texts.value;
  const known = facts.value;
  if (!known) return null;
  const rows: readonly (readonly [string, string])[] = [
    [t.model.button, known.name],
    [t.facts.version, `RWKV-${known.version}`],
    [t.facts.weights, countText(known.parameters)],
    [t.facts.type, known.dtype],
    [t.facts.backend, known.strategy ?? known.backend],
    [t.facts.threads, String(known.threads)],
    [t.facts.weightMemory, byteText(known.weightBytes)],
    [t.facts.stateMemory, byteText(known.stateBytes)],
    [t.facts.loadTime, `${(known.loadMilliseconds / 1000).toFixed(2)} s`],
  ];
  return (
    <>
      <dl class="facts" data-testid="facts">
        {rows.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {!globalThis.crossOriginIsolated && <p class="note">{t.facts.oneThread}</p>}
      {isTaleTeller.value && <p class="note">{t.model.embeddedAbout}</p>}
    </>
  );
}
