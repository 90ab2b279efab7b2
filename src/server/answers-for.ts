// In whose name a worker answers requests: those of a server elsewhere, whose clients are to see no difference.

import type { ChatFormatName } from "../chat/formats.js";
import type { SamplingOptions } from "../sampling/sampling-options.js";

/** A server, and one of its API keys. */
export interface AnswersFor {
  /** What stands for the API key: what was read for one is not found by another. */
  readonly owner: string;
  /** The names of the model. */
  readonly name: string;
  readonly aliases: readonly string[];
  /** How tokens are sampled, and conversations written, where a request does not say. */
  readonly sampling: SamplingOptions;
  readonly format?: ChatFormatName | undefined;
  /** Those of a request. */
  readonly limits: { readonly bodyBytes: number; readonly promptTokens: number; readonly maxTokens: number };
}
