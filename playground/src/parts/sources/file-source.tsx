// Files of the user: chosen, or dropped anywhere on the page.

import { useEffect, useRef, useState } from "preact/hooks";
import { chosenFiles, isSharded } from "../../chosen-files.js";
import { keep } from "../../kept-models.js";
import type { Source } from "../../protocol.js";
import { byteText, texts } from "../../texts/texts.js";
import { Failure } from "../failure.js";
import { Fitting } from "../fitting.js";
import { droppedFiles, type SourceProps } from "./source.js";

export function FileSource({ onChosen }: SourceProps) {
  const t = texts.value.model;
  const input = useRef<HTMLInputElement>(null);
  const [source, setSource] = useState<Source | undefined>(undefined);
  const [error, setError] = useState<string | undefined>(undefined);
  const choose = (files: readonly File[]) => {
    const chosen = chosenFiles(files);
    setError(chosen === "none" ? t.noModelFile : chosen === "many" ? t.manyModels : undefined);
    setSource(typeof chosen === "string" ? undefined : chosen);
  };
  useEffect(() => {
    if (!droppedFiles.value) return;
    choose(droppedFiles.value);
    droppedFiles.value = undefined;
  }, [droppedFiles.value]);
  const mustBeKept = source?.kind === "files" && isSharded(source);
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
      {mustBeKept && (
        <div class="row">
          <p>{t.shardsAbout}</p>
          <button
            type="button"
            onClick={() => keep(source, source.model.name, (path) => setSource({ kind: "kept", path }))}
          >
            {t.copyIn(byteText([source.model, ...source.others].reduce((sum, { size }) => sum + size, 0)))}
          </button>
        </div>
      )}
      {source && !mustBeKept && <Fitting key={keyOf(source)} source={source} onChosen={onChosen} />}
    </section>
  );
}

function keyOf(source: Source): string {
  if (source.kind !== "files") return JSON.stringify(source);
  return [source.model, ...source.others].map(({ name, size }) => `${name} ${size}`).join();
}
