// The plain byte tokenizer: a token is a byte of the text's UTF-8, 256 in all.

import { byteTokenDecoding, checkText, type Tokenizer } from "./tokenizer.js";

const none = new Uint8Array(0);

export function byteTokenizer(): Tokenizer {
  const encoder = new TextEncoder();
  return {
    kind: "bytes",
    vocabularySize: 256,
    encode: (text) => [...encoder.encode(checkText(text))],
    ...byteTokenDecoding((id) => (id < 256 ? Uint8Array.of(id) : none)),
  };
}
