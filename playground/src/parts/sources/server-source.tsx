// A server that writes in place of this page.

import { useState } from "preact/hooks";
import { apiFolder } from "../../engines/server-engine.js";
import { ownServer, useServer } from "../../model-state.js";
import { texts } from "../../texts/texts.js";
import { Failure } from "../failure.js";
import type { SourceProps } from "./source.js";

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
