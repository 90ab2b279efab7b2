// The model in the package.

import { embedded, loadModel, taleTeller } from "../../model-state.js";
import { texts } from "../../texts/texts.js";
import type { SourceProps } from "./source.js";

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
