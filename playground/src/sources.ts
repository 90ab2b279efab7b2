// What the dialog of models offers, in order. A further source of models, such as models by name, is a part of the dialog here, a kind of
// `Source` in protocol.ts and a case in worker/open-source.ts.

import type { FunctionComponent } from "preact";
import { EmbeddedSource, FileSource, ServerSource, type SourceProps, UrlSource } from "./parts/model-sources.js";

export const sources: readonly FunctionComponent<SourceProps>[] = [EmbeddedSource, FileSource, UrlSource, ServerSource];
