// The byte tokenizer: each token is one byte of the text's UTF-8, so there are 256.

import { byteTokenDecoding, checkText, type Tokenizer } from "./tokenizer.js";

const noBytes = new Uint8Array(0);

/** Makes a byte tokenizer. */
export function byteTokenizer(): Tokenizer {
  const encoder = new TextEncoder();
  return {
    kind: "bytes",
    vocabularySize: 256,
    encode: (text) => [...encoder.encode(checkText(text))],
    ...byteTokenDecoding((id) => (id < 256 ? Uint8Array.of(id) : noBytes)),
  };
}
