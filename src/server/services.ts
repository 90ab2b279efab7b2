// What resources are made of: the parts of one application.

import type { Model } from "../generation/model.js";
import type { BatchDirectory } from "./batches/batch-directory.js";
import type { BatchRunner } from "./batches/batch-runner.js";
import type { ConstraintCache } from "./constraint-cache.js";
import type { Inference } from "./inference.js";
import type { Metrics } from "./metrics.js";
import type { ResolvedAppOptions } from "./options.js";
import type { PromptEncoder } from "./prompts.js";
import type { ServedModel } from "./served-model.js";
import type { Shelf } from "./shelf.js";

export interface Services {
  readonly model: Model;
  /** The model's names. */
  readonly served: ServedModel;
  readonly options: ResolvedAppOptions;
  readonly inference: Inference;
  readonly prompts: PromptEncoder;
  readonly constraints: ConstraintCache;
  readonly metrics: Metrics;
  /** States that clients made. */
  readonly states: Shelf;
  /** Responses that can be continued. */
  readonly responses: Shelf;
  /** Files and batches of clients, where there is a folder for them, and what carries them out. */
  readonly batches: { readonly directory: BatchDirectory; readonly runner: BatchRunner } | undefined;
}
