// What the dialog of models offers, in order: a further source of models is a further part of the dialog here, a kind of `Source` in
// protocol.ts and a case in worker/open-source.ts. Likewise backends.

import type { FunctionComponent } from "preact";
import { EmbeddedSource, FileSource, ServerSource, UrlSource } from "./parts/model-sources.js";
import type { Backend } from "./protocol.js";

export interface SourceProps {
  /** Called when a model is chosen: the dialog closes. */
  readonly onChosen: () => void;
}

export const sources: readonly FunctionComponent<SourceProps>[] = [EmbeddedSource, FileSource, UrlSource, ServerSource];

/** Where the page can compute. Where there is only one choice, none is offered. */
export const backends: readonly Backend[] = ["auto"];
