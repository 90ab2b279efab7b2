// What the dialog of models offers, in order. A further source of models is a part of the dialog here, a kind of `Source` in protocol.ts and a
// case in worker/open-source.ts.

import type { FunctionComponent } from "preact";
import { EmbeddedSource } from "./parts/sources/embedded-source.js";
import { FileSource } from "./parts/sources/file-source.js";
import { HubSource } from "./parts/sources/hub-source.js";
import { KeptSource } from "./parts/sources/kept-source.js";
import { ServerSource } from "./parts/sources/server-source.js";
import type { SourceProps } from "./parts/sources/source.js";
import { UrlSource } from "./parts/sources/url-source.js";

export const sources: readonly FunctionComponent<SourceProps>[] = [
  EmbeddedSource,
  KeptSource,
  HubSource,
  FileSource,
  UrlSource,
  ServerSource,
];
