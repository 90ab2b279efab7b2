// Models by name, from the hub or a mirror of it. What fits is said of each before anything is downloaded.

import { useState } from "preact/hooks";
import { library } from "../../kept-models.js";
import { fitOf, fittingOf } from "../../page-memory.js";
import type { HubModel, Source } from "../../protocol.js";
import { defaultHub, hub } from "../../settings.js";
import { byteText, texts } from "../../texts/texts.js";
import { Failure } from "../failure.js";
import { Fitting } from "../fitting.js";
import type { SourceProps } from "./source.js";

export function HubSource({ onChosen }: SourceProps) {
  const t = texts.value.model;
  const [typed, setTyped] = useState("");
  const [source, setSource] = useState<Source | undefined>(undefined);
  /** How often was looked: each time anew, since what failed may be there by now. */
  const [looks, setLooks] = useState(0);
  const [error, setError] = useState<string | undefined>(undefined);
  const known = library.value?.known ?? [];
  const chosen = known.find(({ name }) => name === typed);
  const look = () => {
    setLooks(looks + 1);
    const name = typed.trim();
    const isHub = /^https?:\/\/[^/]/.test(hub.value);
    setError(name === "" ? t.nameWrong : isHub ? undefined : t.hubWrong);
    if (name === "" || !isHub) return setSource(undefined);
    // A path of that spelling would be one of this page's server.
    const isPlain = /^[^/:]+\/[^/:]+\/.+/.test(name);
    const named = { kind: "name", name: isPlain ? `hf:${name}` : name, hub: hub.value } as const;
    setSource(chosen?.path === undefined ? named : { kind: "kept", path: chosen.path });
  };
  return (
    <section class="source" data-testid="hub">
      <h3>{t.byName}</h3>
      <p class="note">{t.byNameAbout}</p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          look();
        }}
      >
        <label class="field">
          <span>{t.official}</span>
          <select
            value={chosen?.name ?? ""}
            onChange={(event) => {
              setTyped(event.currentTarget.value);
              setSource(undefined);
            }}
          >
            <option value="">{t.chooseOne}</option>
            {known.map((model) => (
              <option key={model.name} value={model.name}>
                {model.name}: {describe(model)}
              </option>
            ))}
          </select>
        </label>
        <div class="row">
          <label class="wide">
            <span class="hidden">{t.name}</span>
            <input
              type="text"
              autocapitalize="off"
              spellcheck={false}
              placeholder="hf:owner/repo/model.gguf"
              value={typed}
              onInput={(event) => setTyped(event.currentTarget.value)}
            />
          </label>
          <button type="submit">{t.look}</button>
        </div>
        <details>
          <summary>{t.hub}</summary>
          <label class="field">
            <span>{t.hubAbout}</span>
            <input
              type="text"
              inputMode="url"
              placeholder={defaultHub}
              value={hub.value}
              onInput={(event) => (hub.value = event.currentTarget.value.trim() || defaultHub)}
            />
          </label>
        </details>
      </form>
      {chosen && !source && <Doubt model={chosen} />}
      <Failure error={error} />
      {source && <Fitting key={looks} source={source} onChosen={onChosen} />}
    </section>
  );
}

/** What is to be known of a model that this device may have no memory for. */
function Doubt({ model }: { readonly model: HubModel }) {
  const t = texts.value.model;
  const fitting = fittingOf(model.choices);
  if (fitting && fitOf(fitting.bytes) === "yes") return null;
  return <p class="notice">{fitting ? t.maybeTooLarge : t.tooLargeForPage}</p>;
}

/** "5.9 GB, fits as q8 (3.1 GB)" */
function describe({ bytes, isExact, choices, path }: HubModel): string {
  const t = texts.value.model;
  const size = isExact ? byteText(bytes) : t.about(byteText(bytes));
  const here = path === undefined ? "" : `, ${t.here}`;
  const fitting = fittingOf(choices);
  if (!fitting) return `${size}, ${t.fitsNowhere}`;
  const isSure = fitOf(fitting.bytes) === "yes";
  if (isSure && fitting.dtype === "stored") return `${size}, ${t.fitsYes}${here}`;
  return `${size}, ${(isSure ? t.fitsAs : t.mayFitAs)(fitting.dtype, byteText(fitting.bytes))}${here}`;
}
