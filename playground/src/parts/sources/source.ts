// What the parts of the dialog of models have in common.

import { signal } from "@preact/signals";

export interface SourceProps {
  /** Called when a model is chosen: the dialog closes. */
  readonly onChosen: () => void;
}

/** Files that were dropped anywhere on the page. */
export const droppedFiles = signal<readonly File[] | undefined>(undefined);
