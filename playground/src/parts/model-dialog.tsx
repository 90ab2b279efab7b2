// Which model writes, how its loading goes, and the dialog in which another one is chosen.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { findGpu } from "../backends.js";
import { refreshLibrary } from "../kept-models.js";
import { embedded, loadModel, model, taleTeller, waiting } from "../model-state.js";
import { sources } from "../sources.js";
import { texts } from "../texts/texts.js";
import { Dialog } from "./dialog.js";

export const isChoosing = signal(false);

/** The name of the model, which opens the dialog. */
export function ModelButton() {
  const t = texts.value.model;
  const { value } = model;
  const name =
    value.kind === "local"
      ? value.facts.name
      : value.kind === "server"
        ? `${value.model.id} (${t.remote})`
        : value.kind === "loading"
          ? `${value.name}…`
          : t.none;
  return (
    <button
      type="button"
      class="model-button"
      data-testid="model"
      aria-label={`${t.change}: ${name}`}
      onClick={() => (isChoosing.value = true)}
    >
      <span class={`dot ${value.kind}`} aria-hidden="true" />
      <span class="name">{name}</span>
    </button>
  );
}

export function ModelDialog() {
  const close = () => {
    isChoosing.value = false;
  };
  const isOpen = isChoosing.value;
  useEffect(() => {
    // Where the worker cannot start, the page says so above.
    if (isOpen) refreshLibrary().catch(() => {});
    if (isOpen) void findGpu();
  }, [isOpen]);
  return (
    <Dialog title={texts.value.model.title} isOpen={isOpen} onClose={close}>
      {sources.map((Part, i) => (
        <Part key={i} onChosen={close} />
      ))}
    </Dialog>
  );
}

/** A model that waits for what is being written. */
export function WaitingBar() {
  const t = texts.value;
  const { value } = waiting;
  if (!value) return null;
  return (
    <div class="loading" role="status" data-testid="waiting">
      <p>{t.model.waits(value.name)}</p>
      <div class="row">
        <button type="button" onClick={value.now}>
          {t.model.loadNow}
        </button>
        <button type="button" class="quiet" onClick={value.cancel}>
          {t.cancel}
        </button>
      </div>
    </div>
  );
}

/** How loading goes, or why it failed; above every view. */
export function LoadingBar() {
  const t = texts.value;
  const { value } = model;
  if (value.kind === "loading") {
    const isLong = value.name !== taleTeller;
    return (
      <div class={`loading ${isLong ? "" : "is-short"}`}>
        <label>
          <span>
            {t.model.loading(value.name)} <span class="note">{Math.round(value.share * 100)} %</span>
          </span>
          <progress max={1} value={value.share} />
        </label>
        {isLong && (
          <button type="button" onClick={value.cancel}>
            {t.cancel}
          </button>
        )}
      </div>
    );
  }
  if (value.kind === "failed") {
    return (
      <div class="loading is-failed" role="alert">
        <p>
          <strong>{t.model.failed(value.name)}.</strong> {value.message}
          {value.isDeleted && ` ${t.model.badDeleted}`}
        </p>
        <div class="row">
          <button type="button" onClick={() => void loadModel(embedded, taleTeller)}>
            {t.model.useEmbedded}
          </button>
          <button type="button" class="quiet" onClick={() => (isChoosing.value = true)}>
            {t.model.change}
          </button>
        </div>
      </div>
    );
  }
  if (value.kind === "local" && value.facts.tokenizer === undefined) {
    return (
      <div class="loading is-failed" role="alert">
        <p>{t.model.noTokenizer}</p>
      </div>
    );
  }
  return null;
}
