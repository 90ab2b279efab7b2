// A button that copies a text, and says whether it did.

import { useState } from "preact/hooks";
import { copyText } from "../downloads.js";
import { texts } from "../texts/texts.js";

export function CopyButton({ text, label }: { readonly text: string; readonly label?: string }) {
  const [outcome, setOutcome] = useState<"none" | "copied" | "refused">("none");
  const copy = async () => {
    setOutcome((await copyText(text)) ? "copied" : "refused");
    setTimeout(() => setOutcome("none"), 2000);
  };
  const t = texts.value;
  const said = { none: label ?? t.copy, copied: t.copied, refused: t.notCopied }[outcome];
  return (
    <button type="button" class="quiet" onClick={copy}>
      <span role="status">{said}</span>
    </button>
  );
}
