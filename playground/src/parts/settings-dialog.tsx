// Settings of Chat and Complete, in a dialog that one button opens.

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { texts } from "../texts/texts.js";
import { Dialog } from "./dialog.js";
import { SamplingControls } from "./sampling-controls.js";

export function SettingsButton({ children }: { readonly children?: ComponentChildren }) {
  const [isOpen, setOpen] = useState(false);
  const t = texts.value.sampling;
  return (
    <>
      <button type="button" class="quiet" onClick={() => setOpen(true)}>
        {t.title}
      </button>
      <Dialog title={t.title} isOpen={isOpen} onClose={() => setOpen(false)}>
        {children}
        <SamplingControls />
      </Dialog>
    </>
  );
}
