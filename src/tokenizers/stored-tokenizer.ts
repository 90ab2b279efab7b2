// The tokenizer of a vocabulary that lies in the file of weights, as GGUF files of RWKV have it: the World vocabulary,
// each token written as Python's repr of its bytes without the quotes. Source: llama.cpp, conversion/base.py
// (_set_vocab_rwkv_world) and src/llama-vocab.cpp (llama_unescape_rwkv_token).
//
// There token 0 has the text "<s>" and unused ones "[PAD65530]". llama.cpp finds these in texts, too; here they are
// only what their types say, so that "<s>" in a text is text.

import { TokenizerError } from "../errors.js";
import type { StoredVocabulary } from "../stored-vocabulary.js";
import { tokenizerOfTokens, type WorldTokenizer } from "./world.js";

const [controlToken, unusedToken] = [3, 5];

/** Whether a tokenizer can be made of a vocabulary. */
export function isWorldVocabulary({ kind }: StoredVocabulary): boolean {
  return kind === "rwkv";
}

/**
 * Makes the tokenizer of a vocabulary for which `isWorldVocabulary` holds.
 *
 * @param name of the file, for errors
 * @throws TokenizerError for a token that is not escaped as expected
 */
export function storedTokenizer(name: string, { tokens, types }: StoredVocabulary): WorldTokenizer {
  const byId: Uint8Array[] = [];
  tokens.forEach((text, id) => {
    const type = types?.[id];
    // Without types the end of a document and padding are known by their texts at their places.
    const isText = types
      ? type !== controlToken && type !== unusedToken
      : !(id === 0 && text === "<s>") && text !== `[PAD${id}]`;
    if (isText && text !== "") byId[id] = unescaped(name, id, text);
  });
  return tokenizerOfTokens(name, byId);
}

const simpleEscapes: Readonly<Record<string, number>> = { t: 9, n: 10, r: 13 };

const maxTokenText = 4096;

/** The bytes of a token: \t, \n, \r, \xHH; a backslash before any other character stands for that character. */
function unescaped(name: string, id: number, text: string): Uint8Array {
  const encoder = new TextEncoder();
  if (!text.includes("\\")) return encoder.encode(text);
  const bytes: number[] = [];
  const part = /\\x([\da-fA-F]{2})|\\(.)|[^\\]+/suy;
  while (part.lastIndex < text.length && text.length <= maxTokenText) {
    const [found, hex, escaped] = part.exec(text) ?? [];
    if (found === undefined) break;
    const simple = simpleEscapes[escaped ?? ""];
    if (hex !== undefined) bytes.push(Number.parseInt(hex, 16));
    else if (simple !== undefined) bytes.push(simple);
    else bytes.push(...encoder.encode(escaped ?? found));
  }
  if (part.lastIndex === text.length) return Uint8Array.from(bytes);
  throw new TokenizerError(
    `${name}: token ${id}: expected at most ${maxTokenText} escaped characters, found ${JSON.stringify(text.slice(0, 60))}`,
  );
}

/** A vocabulary as llama.cpp's converter writes it. */
export function vocabularyOf(
  { tokens }: WorldTokenizer,
  size: number,
): StoredVocabulary & { types: readonly number[] } {
  const ids = Array.from({ length: size }, (_, id) => id);
  return {
    kind: "rwkv",
    tokens: ids.map((id) => (tokens[id] ? escaped(tokens[id]) : id === 0 ? "<s>" : `[PAD${id}]`)),
    types: ids.map((id) => (tokens[id] ? 1 : id === 0 ? controlToken : unusedToken)),
  };
}

/** The file of a World vocabulary, as RWKV-LM has it: tokens that are whole characters as text, others as bytes. */
export function worldVocabularyText({ tokens }: WorldTokenizer): string {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const literal = (bytes: Uint8Array) => {
    const quote = quoteOf(bytes);
    try {
      return quote + escapedText(decoder.decode(bytes), quote) + quote;
    } catch {
      return `b${quote}${escaped(bytes)}${quote}`;
    }
  };
  const lines = tokens.map((bytes, id) => `${id} ${literal(bytes)} ${bytes.length}\n`);
  return lines.join(""); // of ids without a token there is none
}

/** As Python's repr of str, without quotes: what cannot be seen is escaped by its number. */
function escapedText(text: string, quote: string): string {
  return text.replace(/[\\'"]|(?! )[\p{C}\p{Z}]/gu, (character) => {
    const simple = { "\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\" }[character];
    if (simple !== undefined) return simple;
    if (character === "'" || character === '"') return character === quote ? `\\${quote}` : character;
    const number = (character.codePointAt(0) as number).toString(16);
    if (number.length <= 2) return `\\x${number.padStart(2, "0")}`;
    return number.length <= 4 ? `\\u${number.padStart(4, "0")}` : `\\U${number.padStart(8, "0")}`;
  });
}

/** Python's repr takes " around a text with ' and without ". */
function quoteOf(bytes: Uint8Array): string {
  return bytes.includes(0x27) && !bytes.includes(0x22) ? '"' : "'";
}

/** As Python's repr of bytes, without b and quotes. */
function escaped(bytes: Uint8Array): string {
  const quote = quoteOf(bytes).charCodeAt(0);
  return Array.from(bytes, (byte) => {
    if (byte === 0x5c || byte === quote) return `\\${String.fromCharCode(byte)}`;
    if (byte === 9) return "\\t";
    if (byte === 10) return "\\n";
    if (byte === 13) return "\\r";
    return byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, "0")}`;
  }).join("");
}
