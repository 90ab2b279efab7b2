// What a tokenizer is to the rest of the package, and how bytes become text without ever cutting a character in two.

import { TokenizerError } from "../errors.js";

/** Turns text into token ids and back. */
export interface Tokenizer {
  readonly kind: "huggingface" | "world" | "bytes";
  /** One more than the largest id. */
  readonly vocabularySize: number;
  /** The id that ends a document in training data, if the vocabulary has one. */
  readonly endOfText?: number;
  encode(text: string): number[];
  /** Ids that have no text (padding) give none. Bytes that are no UTF-8 become U+FFFD. */
  decode(ids: ArrayLike<number>): string;
  /** A decoder for ids that come one by one. */
  stream(): TokenStream;
}

/** Decodes ids one by one; characters come out as soon as their last byte is there. */
export interface TokenStream {
  /** The text that `id` completes; often a word, sometimes nothing yet. */
  push(id: number): string;
  /** What is left at the end: nothing, or U+FFFD for an unfinished character. */
  end(): string;
}

/** Decoding for tokenizers whose tokens are byte strings: the bytes of all tokens, read as UTF-8. */
export function byteTokenDecoding(bytesOf: (id: number) => Uint8Array): Pick<Tokenizer, "decode" | "stream"> {
  const stream = (): TokenStream => {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return {
      push: (id) => decoder.decode(bytesOf(checkId(id)), { stream: true }),
      end: () => decoder.decode(),
    };
  };
  return {
    stream,
    decode(ids) {
      const parts = Array.from(ids, (id) => bytesOf(checkId(id)));
      const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
      let at = 0;
      for (const part of parts) {
        bytes.set(part, at);
        at += part.length;
      }
      return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
    },
  };
}

/** @throws TokenizerError for what is no text, which callers in JavaScript may pass */
export function checkText(text: string): string {
  if (typeof text !== "string") throw new TokenizerError(`expected a text (a string), found ${typeof text}`);
  return text;
}

/** @throws TokenizerError for what cannot be an id */
export function checkId(id: number): number {
  if (!Number.isInteger(id) || id < 0)
    throw new TokenizerError(`expected a token id (a whole number >= 0), found ${id}`);
  return id;
}
