// What a model would take, by its header, before anything else of it is read; and how it is to be loaded.

import { useEffect, useState } from "preact/hooks";
import type { WeightDType } from "rwkv";
import { backends, gpu } from "../backends.js";
import { callWorker } from "../engines/worker-client.js";
import { keepAndLoad, library, rememberWay } from "../kept-models.js";
import { loadModel } from "../model-state.js";
import { fitOf, fittingOf } from "../page-memory.js";
import type { Backend, Inspection, Source } from "../protocol.js";
import { wayKey, ways } from "../settings.js";
import { byteText, countText, texts } from "../texts/texts.js";
import { BackendSelect } from "./backend-select.js";
import { Failure } from "./failure.js";
import type { SourceProps } from "./sources/source.js";

export function Fitting({ source, onChosen }: SourceProps & { readonly source: Source }) {
  const t = texts.value.model;
  const [known, setKnown] = useState<Inspection | undefined>(undefined);
  const [error, setError] = useState<string | undefined>(undefined);
  const [dtype, setDtype] = useState<WeightDType | "stored">("stored");
  const [backend, setBackend] = useState<Backend>(backends.value[0] as Backend);
  const [wantsKeeping, setKeeping] = useState(true);
  useEffect(() => {
    const controller = new AbortController();
    callWorker("inspect", source, { signal: controller.signal }).then(
      (inspection) => {
        if (controller.signal.aborted) return;
        setKnown(inspection);
        // As it was computed with when it was chosen last, where that is offered.
        const before = ways.peek()[wayKey(inspection.from, inspection.name)];
        const wanted = inspection.choices.find((choice) => choice.dtype === before?.dtype);
        setDtype((wanted ?? fittingOf(inspection.choices))?.dtype ?? "stored");
        if (before && backends.peek().includes(before.backend)) setBackend(before.backend);
      },
      (reason: Error) => !controller.signal.aborted && setError(reason.message),
    );
    return () => controller.abort();
  }, []); // a part for each source
  if (error !== undefined) return <Failure error={error} />;
  if (!known) return <p role="status">{t.looking}…</p>;
  const storage = library.value?.storage;
  const mayKeep = storage !== undefined && source.kind !== "kept" && !isIndex(source);
  const keeps = mayKeep && wantsKeeping;
  const isDownloaded = source.kind === "name" || source.kind === "url";
  // A GPU has memory of its own; how much nobody tells.
  const mayExceed = backend !== "wasm" && gpu.value !== undefined;
  const fits = { yes: t.fitsYes, maybe: mayExceed ? t.fitsGpu : t.fitsMaybe, no: mayExceed ? t.fitsGpu : t.fitsNo };
  const chosen = fitOf(known.choices.find((choice) => choice.dtype === dtype)?.bytes ?? 0);
  return (
    <form
      class="fitting"
      data-testid="fitting"
      onSubmit={(event) => {
        event.preventDefault();
        const request = { source, dtype, backend };
        if (source.kind === "kept") rememberWay(known.from, known.name, { dtype, backend });
        if (keeps) keepAndLoad(request, known.name, known.from);
        else void loadModel(request, known.name);
        onChosen();
      }}
    >
      <p>
        <strong>{known.name}</strong>, {known.format}, {countText(known.parameters)} {t.parameters}
        {source.kind === "files" && source.others[0] && `, ${t.tokenizerFile(source.others[0].name)}`}
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
              {fits[fitOf(choice.bytes)]}
            </span>
          </label>
        ))}
      </fieldset>
      {chosen === "maybe" && !mayExceed && <p class="notice">{t.maybeTooLarge}</p>}
      <BackendSelect value={backend} onChange={setBackend} />
      {mayKeep && (
        <label class="check">
          <input type="checkbox" checked={wantsKeeping} onChange={(event) => setKeeping(event.currentTarget.checked)} />
          <span>{t.keep(byteText(known.fileBytes), byteText(Math.max(0, storage.quota - storage.usage)))}</span>
        </label>
      )}
      <button type="submit" class="primary" disabled={chosen === "no" && !mayExceed}>
        {isDownloaded ? t.download(byteText(known.fileBytes)) : t.load}
      </button>
    </form>
  );
}

/** Whether a model is in several files on a server that is no hub, which are read from there each time. */
function isIndex(source: Source): boolean {
  return source.kind === "url" && /(\.json|\/)$/.test(new URL(source.url).pathname);
}
