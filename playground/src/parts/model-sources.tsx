// The parts of the dialog of models: one for each place that a model may come from.

import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import type { WeightDType } from "rwkv";
import { backends } from "../backends.js";
import { chosenFiles } from "../chosen-files.js";
import { apiFolder } from "../engines/server-engine.js";
import { callWorker } from "../engines/worker-client.js";
import { embedded, loadModel, ownServer, taleTeller, useServer } from "../model-state.js";
import type { Backend, Inspection, Source } from "../protocol.js";
import { byteText, countText, texts } from "../texts/texts.js";

export interface SourceProps {
  /** Called when a model is chosen: the dialog closes. */
  readonly onChosen: () => void;
}

/** Files that were dropped anywhere on the page. */
export const droppedFiles = signal<readonly File[] | undefined>(undefined);

export function EmbeddedSource({ onChosen }: SourceProps) {
  const t = texts.value.model;
  return (
    <section class="source">
      <h3>{t.embedded}</h3>
      <p class="note">{t.embeddedAbout}</p>
      <button
        type="button"
        onClick={() => {
          void loadModel(embedded, taleTeller);
          onChosen();
        }}
      >
        {t.use}
      </button>
    </section>
  );
}

export function FileSource({ onChosen }: SourceProps) {
  const t = texts.value.model;
  const input = useRef<HTMLInputElement>(null);
  const [source, setSource] = useState<Extract<Source, { kind: "files" }> | undefined>(undefined);
  const [error, setError] = useState<string | undefined>(undefined);
  const choose = (files: readonly File[]) => {
    const chosen = chosenFiles(files);
    setError(chosen === "none" ? t.noModelFile : chosen === "many" ? t.manyModels : undefined);
    setSource(typeof chosen === "string" ? undefined : { kind: "files", ...chosen });
  };
  useEffect(() => {
    if (!droppedFiles.value) return;
    choose(droppedFiles.value);
    droppedFiles.value = undefined;
  }, [droppedFiles.value]);
  return (
    <section class="source">
      <h3>{t.file}</h3>
      <p class="note">{t.fileAbout}</p>
      <div class="drop">
        <p>{t.drop}</p>
        <button type="button" onClick={() => input.current?.click()}>
          {t.choose}
        </button>
        <input
          ref={input}
          class="hidden"
          type="file"
          multiple
          tabIndex={-1}
          aria-label={t.choose}
          data-testid="files"
          onChange={(event) => {
            choose([...(event.currentTarget.files ?? [])]);
            event.currentTarget.value = "";
          }}
        />
      </div>
      <Failure error={error} />
      {source && <Fitting key={`${source.model.name} ${source.tokenizer?.name}`} source={source} onChosen={onChosen} />}
    </section>
  );
}

export function UrlSource({ onChosen }: SourceProps) {
  const t = texts.value.model;
  const [typed, setTyped] = useState("");
  const [source, setSource] = useState<Source | undefined>(undefined);
  const [error, setError] = useState<string | undefined>(undefined);
  return (
    <section class="source">
      <h3>{t.url}</h3>
      <p class="note">{t.urlAbout}</p>
      <form
        class="row"
        onSubmit={(event) => {
          event.preventDefault();
          const isUrl = URL.canParse(typed, document.baseURI) && typed.trim() !== "";
          setError(isUrl ? undefined : t.urlWrong);
          setSource(isUrl ? { kind: "url", url: new URL(typed, document.baseURI).href } : undefined);
        }}
      >
        <label class="wide">
          <span class="hidden">{t.urlLabel}</span>
          <input
            type="text"
            inputMode="url"
            placeholder="https://…/model.pth"
            value={typed}
            onInput={(event) => setTyped(event.currentTarget.value)}
          />
        </label>
        <button type="submit">{t.look}</button>
      </form>
      <Failure error={error} />
      {source?.kind === "url" && <Fitting key={source.url} source={source} onChosen={onChosen} />}
    </section>
  );
}

export function ServerSource({ onChosen }: SourceProps) {
  const t = texts.value.model;
  const [url, setUrl] = useState(ownServer ?? "http://127.0.0.1:8080");
  const [key, setKey] = useState("");
  const [error, setError] = useState<string | undefined>(undefined);
  const [isWaiting, setWaiting] = useState(false);
  const connect = async () => {
    setWaiting(true);
    setError(undefined);
    try {
      await useServer({ url: apiFolder(url), key });
      onChosen();
    } catch (reason) {
      setError((reason as Error).message);
    } finally {
      setWaiting(false);
    }
  };
  return (
    <section class="source">
      <h3>{ownServer ? t.thisServer : t.server}</h3>
      <p class="note">{t.serverAbout}</p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void connect();
        }}
      >
        <label class="field">
          <span>{t.serverUrl}</span>
          <input type="text" inputMode="url" value={url} onInput={(event) => setUrl(event.currentTarget.value)} />
        </label>
        <label class="field">
          <span>{t.serverKey}</span>
          <input
            type="password"
            autocomplete="off"
            value={key}
            onInput={(event) => setKey(event.currentTarget.value)}
          />
        </label>
        <button type="submit" disabled={isWaiting}>
          {t.connect}
        </button>
      </form>
      <Failure error={error} />
    </section>
  );
}

/** What a model would take, by its header, before anything else of it is read. */
function Fitting({ source, onChosen }: SourceProps & { readonly source: Source }) {
  const t = texts.value.model;
  const [known, setKnown] = useState<Inspection | undefined>(undefined);
  const [error, setError] = useState<string | undefined>(undefined);
  const [dtype, setDtype] = useState<WeightDType | "stored">("stored");
  const [backend, setBackend] = useState<Backend>(backends[0] as Backend);
  useEffect(() => {
    const controller = new AbortController();
    callWorker("inspect", source).then(
      (inspection) => {
        if (controller.signal.aborted) return;
        setKnown(inspection);
        setDtype(inspection.choices.find(({ fits }) => fits)?.dtype ?? "stored");
      },
      (reason: Error) => !controller.signal.aborted && setError(reason.message),
    );
    return () => controller.abort();
  }, [source]);
  if (error !== undefined) return <Failure error={error} />;
  if (!known) return <p role="status">{t.looking}…</p>;
  const chosen = known.choices.find((choice) => choice.dtype === dtype);
  return (
    <form
      class="fitting"
      data-testid="fitting"
      onSubmit={(event) => {
        event.preventDefault();
        void loadModel({ source, dtype, backend }, known.name);
        onChosen();
      }}
    >
      <p>
        <strong>{known.name}</strong>, {known.format}, {countText(known.parameters)} {t.parameters}
        {source.kind === "files" && source.tokenizer && `, ${t.tokenizerFile(source.tokenizer.name)}`}
      </p>
      <fieldset>
        <legend>{t.fits}</legend>
        {known.choices.map((choice) => (
          <label key={choice.dtype} class="check">
            <input
              type="radio"
              name="dtype"
              value={choice.dtype}
              checked={dtype === choice.dtype}
              onChange={() => setDtype(choice.dtype)}
            />
            <span>
              {choice.dtype === "stored" ? t.stored : choice.dtype}: {byteText(choice.bytes)},{" "}
              {choice.fits ? t.fitsYes : t.fitsNo}
            </span>
          </label>
        ))}
      </fieldset>
      {backends.length > 1 && (
        <label>
          <span>{t.backend}</span>
          <select value={backend} onChange={(event) => setBackend(event.currentTarget.value as Backend)}>
            {backends.map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
      )}
      <button type="submit" class="primary" disabled={!chosen?.fits}>
        {t.load}
      </button>
    </form>
  );
}

function Failure({ error }: { readonly error: string | undefined }) {
  return error === undefined ? null : (
    <p class="error" role="alert">
      {error}
    </p>
  );
}
