// The interface of tokenizers, and decoding of bytes to text that never cuts a character.

import { TokenizerError } from "../errors.js";

/** Turns text into token ids and back. */
export interface Tokenizer {
  /** The kind of tokenizer. */
  readonly kind: "huggingface" | "world" | "bytes";
  /** One more than the largest id. */
  readonly vocabularySize: number;
  /** The id that ends a document in training data, if the vocabulary has one. */
  readonly endOfText?: number;
  /** Ids below `vocabularySize` that stand for nothing, in ascending order; none where it is absent. */
  readonly unusedIds?: readonly number[];
  /**
   * Encodes a text, without adding special tokens.
   *
   * @throws TokenizerError when the vocabulary has no token for a byte
   */
  encode(text: string): number[];
  /**
   * Decodes ids. Ids without text (padding) give none; bytes that are not UTF-8 become U+FFFD.
   *
   * @throws TokenizerError for a value that cannot be an id
   */
  decode(ids: ArrayLike<number>): string;
  /** Makes a decoder for ids that arrive one by one. */
  stream(): TokenStream;
  /**
   * A copy of the bytes that an id stands for, which may be a part of a character. Absent where the text of a token depends on its
   * neighbours.
   *
   * @throws TokenizerError for a value that cannot be an id
   */
  bytesOf?(id: number): Uint8Array;
}

/** Decodes ids one by one. A character is emitted as soon as its last byte has arrived. */
export interface TokenStream {
  /** Takes the next id. @returns the text that it completes, which may be empty */
  push(id: number): string;
  /** Ends the stream. @returns the rest of the text: usually nothing, or U+FFFD for an unfinished character */
  end(): string;
}

/**
 * Decoding for tokenizers whose tokens are byte strings: concatenates the bytes of the tokens and decodes them as
 * UTF-8.
 */
export function byteTokenDecoding(
  bytesOf: (id: number) => Uint8Array,
): Required<Pick<Tokenizer, "decode" | "stream" | "bytesOf">> {
  const stream = (): TokenStream => {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return {
      push: (id) => decoder.decode(bytesOf(checkId(id)), { stream: true }),
      end: () => decoder.decode(),
    };
  };
  return {
    stream,
    bytesOf: (id) => bytesOf(checkId(id)).slice(),
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

/**
 * The ids of a model's vocabulary that stand for nothing in its tokenizer: gaps between its tokens, and the padding behind
 * them. RWKV World uses 1 to 65529 of 65536 ids, and 0 for the end of a text.
 */
export function unusedIdsOf({ vocabularySize, unusedIds = [], endOfText }: Tokenizer, vocabulary: number): number[] {
  const padding = Array.from({ length: Math.max(0, vocabulary - vocabularySize) }, (_, i) => vocabularySize + i);
  return [...unusedIds.filter((id) => id < vocabulary), ...padding].filter((id) => id !== endOfText);
}

/** @throws TokenizerError for a value that is not a string, which callers in JavaScript may pass */
export function checkText(text: string): string {
  if (typeof text !== "string") throw new TokenizerError(`expected a text (a string), found ${typeof text}`);
  return text;
}

/** @throws TokenizerError for a value that cannot be an id */
export function checkId(id: number): number {
  if (!Number.isInteger(id) || id < 0)
    throw new TokenizerError(`expected a token id (a whole number >= 0), found ${id}`);
  return id;
}
