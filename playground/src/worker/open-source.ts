// From where a model comes to what the library's `load` takes. A new kind of source is a case here.

import type { CheckpointInput } from "rwkv";
import type { Source } from "../protocol.js";

export interface OpenSource {
  /** undefined is the model in the package. */
  readonly input: CheckpointInput | undefined;
  readonly tokenizer?: string;
  /** To be called when the model is loaded. */
  close(): void;
  /** A message about the source, with the files' own names. */
  named(message: string): string;
}

export async function openSource(source: Source): Promise<OpenSource> {
  switch (source.kind) {
    case "embedded":
      return { input: undefined, close() {}, named: (message) => message };
    case "url":
      return { input: source.url, close() {}, named: (message) => message };
    case "files": {
      const { model, tokenizer } = source;
      const named = (message: string) => message.replace(/^blob\b(?!:http)/, model.name);
      if (!tokenizer) return { input: model, close() {}, named };
      const url = URL.createObjectURL(tokenizer);
      return {
        input: model,
        tokenizer: url,
        close: () => URL.revokeObjectURL(url),
        named: (message) => named(message.replaceAll(url, tokenizer.name)),
      };
    }
  }
}
