// What sessions and generations need of their model.

import type { Tokenizer } from "../tokenizers/tokenizer.js";
import type { Scheduler } from "./scheduler.js";
import type { SequenceStore } from "./sequence-store.js";

/** A model's parts, shared by all that works with it. */
export interface ModelContext {
  readonly vocabulary: number;
  readonly scheduler: Scheduler;
  readonly sequences: SequenceStore;
  /** @throws TokenizerError where the model has none */
  readonly tokenizer: Tokenizer;
  /** The ids of text, or a copy of ids. @throws OptionError, TokenizerError */
  tokensOf(input: string | ArrayLike<number>): Int32Array;
}
