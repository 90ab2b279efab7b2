// What sessions and generations need of their model.

import type { Tokenizer } from "../tokenizers/tokenizer.js";
import type { Scheduler } from "./scheduler.js";
import type { SequenceStore } from "./sequence-store.js";

/** The parts of a model that its sessions and generations share. */
export interface ModelContext {
  readonly vocabulary: number;
  readonly scheduler: Scheduler;
  readonly sequences: SequenceStore;
  /** @throws TokenizerError where the model has none */
  readonly tokenizer: Tokenizer;
  /**
   * Ids that stand for nothing in the tokenizer.
   *
   * @throws TokenizerError where the model has none
   */
  readonly unusedTokens: readonly number[];
  /**
   * Encodes text, or copies ids.
   *
   * @throws OptionError for ids outside the vocabulary; TokenizerError without a tokenizer
   */
  tokensOf(input: string | ArrayLike<number>): Int32Array;
}
