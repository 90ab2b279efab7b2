// The tokenizer of RWKV World models: each token is a byte string, and text is cut greedily into the longest ones. A
// vocabulary file has one line for each token, with its id, a Python str or bytes literal, and its length in bytes.
// Reference: https://github.com/BlinkDL/ChatRWKV, tokenizer/rwkv_tokenizer.py

import { TokenizerError } from "../errors.js";
import { PairTable } from "./pair-table.js";
import { pythonLiteralBytes } from "./python-literal.js";
import { byteTokenDecoding, checkText, type Tokenizer } from "./tokenizer.js";

/** A tokenizer of byte strings. */
export interface WorldTokenizer extends Tokenizer {
  readonly kind: "world";
  /** The bytes of each token, by id; absent where an id has no text. */
  readonly tokens: readonly Uint8Array[];
}

/** The name by which a World vocabulary is found beside a model. */
export const worldFile = "rwkv_vocab_v20230424.txt";

const noBytes = new Uint8Array(0);
const maxId = 2 ** 20;
const endOfText = 0;

/** Whether a file is a World vocabulary: its first line is an id, a literal and a length. */
export function looksLikeWorldVocabulary(text: string): boolean {
  return /^\d+ b?['"].*['"] \d+\r?\n/.test(text.slice(0, 4096));
}

/**
 * Reads a World vocabulary.
 *
 * @param name the name of the file, for errors
 * @throws TokenizerError that names the line that is not as expected
 */
export function worldTokenizer(name: string, vocabulary: string): WorldTokenizer {
  return tokenizerOfTokens(name, parseVocabulary(name, vocabulary));
}

/** The tokenizer of byte strings by id; ids without one are absent. */
export function tokenizerOfTokens(name: string, tokens: readonly Uint8Array[]): WorldTokenizer {
  const trie = new ByteTrie();
  tokens.forEach((bytes, id) => trie.add(bytes, id));
  const encoder = new TextEncoder();
  return {
    kind: "world",
    tokens,
    vocabularySize: tokens.length,
    // Used in training data; it has no text, so it is not in the file.
    ...(!tokens[endOfText] && { endOfText }),
    unusedIds: Array.from(tokens.keys()).filter((id) => id !== endOfText && !tokens[id]),
    encode(text) {
      const bytes = encoder.encode(checkText(text));
      const ids: number[] = [];
      for (let at = 0; at < bytes.length; ) {
        const { id, length } = trie.longestMatch(bytes, at);
        if (length === 0) throw new TokenizerError(`${name}: no token for byte ${bytes[at]}`);
        ids.push(id);
        at += length;
      }
      return ids;
    },
    ...byteTokenDecoding((id) => tokens[id] ?? noBytes),
  };
}

/** The bytes of each token, by id. Ids without a line are absent. */
function parseVocabulary(name: string, vocabulary: string): Uint8Array[] {
  const tokens: Uint8Array[] = [];
  vocabulary.split("\n").forEach((line, index) => {
    if (line.trim() === "") return;
    const parts = /^(\d+) (.+) (\d+)\r?$/.exec(line);
    const bytes = parts && pythonLiteralBytes(parts[2] as string);
    const id = Number(parts?.[1]);
    if (!bytes || bytes.length !== Number(parts[3]) || bytes.length === 0 || id > maxId || tokens[id]) {
      throw new TokenizerError(
        `${name}, line ${index + 1}: expected a new id, a Python literal and its length in bytes, found ${line.slice(0, 60)}`,
      );
    }
    tokens[id] = bytes;
  });
  return tokens;
}

/** A trie over bytes, whose edges are in one table with the keys node and byte. */
class ByteTrie {
  readonly #edges = new PairTable(2 ** 17);
  readonly #ids: number[] = [-1];

  add(bytes: Uint8Array, id: number): void {
    let node = 0;
    for (const byte of bytes) {
      let next = this.#edges.get(node, byte);
      if (next < 0) {
        next = this.#ids.push(-1) - 1;
        this.#edges.set(node, byte, next);
      }
      node = next;
    }
    this.#ids[node] = id;
  }

  /** The longest token that starts at `start`; its length is 0 if there is none. */
  longestMatch(bytes: Uint8Array, start: number): { id: number; length: number } {
    let node = 0;
    let id = -1;
    let length = 0;
    for (let at = start; at < bytes.length; at++) {
      node = this.#edges.get(node, bytes[at] as number);
      if (node < 0) break;
      const found = this.#ids[node] as number;
      if (found >= 0) {
        id = found;
        length = at + 1 - start;
      }
    }
    return { id, length };
  }
}
