// The vocabulary that a file of weights has beside them: what a format of checkpoints reads, and a tokenizer is made of.

/** Tokens as a file tells them. */
export interface StoredVocabulary {
  /** Which kind of tokenizer they are for, as the file names it: "rwkv", "gpt2", "llama". */
  readonly kind: string;
  /** The texts of tokens by id, escaped as that kind does it. */
  readonly tokens: readonly string[];
  /** The type of each token, where the file tells it: 1 is an ordinary one, 3 a control token, 5 an unused one. */
  readonly types?: readonly number[];
}
