// Models that the browser keeps for this site: loaded, gone on with, removed.

import { useState } from "preact/hooks";
import { keepAndLoad, keepings, library, removeKept } from "../../kept-models.js";
import type { KeptModel, Source } from "../../protocol.js";
import { hub, wayKey, ways } from "../../settings.js";
import { byteText, texts } from "../../texts/texts.js";
import { Failure } from "../failure.js";
import { Fitting } from "../fitting.js";
import type { SourceProps } from "./source.js";

export function KeptSource({ onChosen }: SourceProps) {
  const t = texts.value.model;
  const [chosen, setChosen] = useState<string | undefined>(undefined);
  const [error, setError] = useState<string | undefined>(undefined);
  const known = library.value;
  if (!known || known.kept.length === 0) return null;
  const remove = (model: KeptModel) => {
    setError(undefined);
    if (!confirm(t.removeAsk(model.title, byteText(model.bytes)))) return;
    removeKept(model).catch((reason: Error) => setError(reason.message));
  };
  return (
    <section class="source" data-testid="kept">
      <h3>{t.kept}</h3>
      {known.storage && <p class="note">{t.storage(byteText(known.storage.usage), byteText(known.storage.quota))}</p>}
      <ul class="kept">
        {known.kept.map((model) => (
          <li key={`${model.from} ${model.title} ${model.path}`}>
            <div>
              <strong>{model.title}</strong>
              <span class="note">
                {model.path === undefined
                  ? t.inPart(byteText(model.bytes), byteText(model.size))
                  : byteText(model.bytes)}
                {model.from && ` · ${model.from}`}
              </span>
            </div>
            <div class="row">
              {model.path !== undefined && (
                <button
                  type="button"
                  aria-expanded={chosen === model.path}
                  aria-label={`${t.load}: ${model.title}`}
                  onClick={() => setChosen(chosen === model.path ? undefined : model.path)}
                >
                  {t.load}
                </button>
              )}
              {model.path === undefined && model.name !== undefined && (
                <button
                  type="button"
                  aria-label={`${t.resume}: ${model.title}`}
                  disabled={isUnderWay(model)}
                  onClick={() => {
                    const way = ways.value[wayKey(model.from, model.title)] ?? { dtype: "stored", backend: "auto" };
                    keepAndLoad({ source: sourceOf(model), ...way }, model.title, model.from);
                    onChosen();
                  }}
                >
                  {t.resume}
                </button>
              )}
              <button
                type="button"
                class="quiet"
                aria-label={`${t.remove}: ${model.title}`}
                disabled={isUnderWay(model)}
                onClick={() => remove(model)}
              >
                {t.remove}
              </button>
            </div>
            {model.path !== undefined && chosen === model.path && (
              <Fitting source={{ kind: "kept", path: model.path }} onChosen={onChosen} />
            )}
          </li>
        ))}
      </ul>
      <Failure error={error} />
    </section>
  );
}

function sourceOf({ name = "" }: KeptModel): Source {
  return /^https?:/.test(name) ? { kind: "url", url: name } : { kind: "name", name, hub: hub.value };
}

/** Whether a download of it runs in this page; of a model that is not whole yet, any of its repository may be that. */
function isUnderWay({ title, name, from, path }: KeptModel): boolean {
  return keepings.value.some(({ source, name: keeping, error }) => {
    if (error !== undefined) return false;
    if (keeping === title || (source.kind === "name" && source.name === name)) return true;
    return path === undefined && source.kind === "name" && repositoryOf(source.name) === from;
  });
}

/** The repository in hf:owner/repo@revision/file; undefined for a short name. */
function repositoryOf(name: string): string | undefined {
  return /^hf:(?:\/\/)?([^/@:]+\/[^/@:]+)/i.exec(name)?.[1];
}
