// A file on any web server.

import { useState } from "preact/hooks";
import type { Source } from "../../protocol.js";
import { texts } from "../../texts/texts.js";
import { Failure } from "../failure.js";
import { Fitting } from "../fitting.js";
import type { SourceProps } from "./source.js";

export function UrlSource({ onChosen }: SourceProps) {
  const t = texts.value.model;
  const [typed, setTyped] = useState("");
  const [source, setSource] = useState<Extract<Source, { kind: "url" }> | undefined>(undefined);
  /** How often was looked: each time anew, since what failed may be there by now. */
  const [looks, setLooks] = useState(0);
  const [error, setError] = useState<string | undefined>(undefined);
  return (
    <section class="source" data-testid="url">
      <h3>{t.url}</h3>
      <p class="note">{t.urlAbout}</p>
      <form
        class="row"
        onSubmit={(event) => {
          event.preventDefault();
          setLooks(looks + 1);
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
      {source && <Fitting key={looks} source={source} onChosen={onChosen} />}
    </section>
  );
}
