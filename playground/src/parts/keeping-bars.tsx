// Models on their way into the browser's storage; above every view, since what is under way goes on whatever one looks at.

import { type Keeping, keepings } from "../kept-models.js";
import { byteText, texts } from "../texts/texts.js";

export function KeepingBars() {
  return (
    <>
      {keepings.value.map((keeping) => (
        <KeepingBar key={keeping.id} keeping={keeping} />
      ))}
    </>
  );
}

function KeepingBar({ keeping }: { readonly keeping: Keeping }) {
  const t = texts.value;
  const { name, done, total, error } = keeping;
  if (error !== undefined) {
    return (
      <div class="loading is-failed" role="alert">
        <p>
          <strong>{t.model.keepingFailed(name)}.</strong> {error}
        </p>
        <div class="row">
          <button type="button" onClick={keeping.again}>
            {t.model.again}
          </button>
          <button type="button" class="quiet" onClick={keeping.dismiss}>
            {t.model.dismiss}
          </button>
        </div>
      </div>
    );
  }
  return (
    <div class="loading" data-testid="keeping">
      <label>
        <span>
          {t.model.keeping(name)}{" "}
          {total > 0 && <span class="note">{t.model.inPart(byteText(done), byteText(total))}</span>}
        </span>
        <progress max={1} value={total > 0 ? done / total : 0} />
      </label>
      <button type="button" onClick={keeping.cancel}>
        {t.cancel}
      </button>
    </div>
  );
}
