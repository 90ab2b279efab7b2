// The tokenizer of RWKV World models: each token is a byte string, text is cut greedily into the longest ones. Vocabulary
// file: a line a token with its id, a Python str or bytes literal, and its length in bytes. Reference:
// https://github.com/BlinkDL/ChatRWKV, tokenizer/rwkv_tokenizer.py

import { TokenizerError } from "../errors.js";
import { pythonLiteralBytes } from "./python-literal.js";
import { byteTokenDecoding, type Tokenizer } from "./tokenizer.js";

const none = new Uint8Array(0);
const maxId = 2 ** 20;

/** Whether a file is a World vocabulary: its first line is an id, a literal and a length. */
export function looksLikeWorldVocabulary(text: string): boolean {
  return /^\d+ b?['"].*['"] \d+\r?\n/.test(text.slice(0, 4096));
}

/**
 * Reads a World vocabulary.
 *
 * @param name names the file in errors
 * @throws TokenizerError naming the line that is not as expected
 */
export function worldTokenizer(name: string, vocabulary: string): Tokenizer {
  const tokens = parseVocabulary(name, vocabulary);
  const trie = new ByteTrie();
  tokens.forEach((bytes, id) => trie.add(bytes, id));
  const encoder = new TextEncoder();
  return {
    kind: "world",
    vocabularySize: tokens.length,
    endOfText: 0, // in training data; it has no text, so it is not in the file
    encode(text) {
      const bytes = encoder.encode(text);
      const ids: number[] = [];
      for (let at = 0; at < bytes.length; ) {
        const { id, length } = trie.longestMatch(bytes, at);
        if (length === 0) throw new TokenizerError(`${name}: no token for byte ${bytes[at]}`);
        ids.push(id);
        at += length;
      }
      return ids;
    },
    ...byteTokenDecoding((id) => tokens[id] ?? none),
  };
}

/** Bytes of each token by id; ids without a line are absent. */
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

/**
 * A trie over bytes. Edges are kept in one open-addressing table keyed by node and byte, which for 65,000 tokens is several
 * times smaller and faster than an object a node.
 */
class ByteTrie {
  #keys = new Int32Array(2 ** 16).fill(-1);
  #targets = new Int32Array(2 ** 16);
  #edges = 0;
  #ids: number[] = [-1];

  add(bytes: Uint8Array, id: number): void {
    let node = 0;
    for (const byte of bytes) {
      let next = this.#child(node, byte);
      if (next < 0) {
        next = this.#ids.length;
        this.#ids.push(-1);
        this.#insert(node * 256 + byte, next);
      }
      node = next;
    }
    this.#ids[node] = id;
  }

  /** The longest token that starts at `start`; length 0 if there is none. */
  longestMatch(bytes: Uint8Array, start: number): { id: number; length: number } {
    let node = 0;
    let id = -1;
    let length = 0;
    for (let at = start; at < bytes.length; at++) {
      node = this.#child(node, bytes[at] as number);
      if (node < 0) break;
      const found = this.#ids[node] as number;
      if (found >= 0) {
        id = found;
        length = at + 1 - start;
      }
    }
    return { id, length };
  }

  #child(node: number, byte: number): number {
    const slot = this.#slot(node * 256 + byte);
    return this.#keys[slot] === -1 ? -1 : (this.#targets[slot] as number);
  }

  /** The slot of a key, or the empty one where it belongs. */
  #slot(key: number): number {
    const mask = this.#keys.length - 1;
    let slot = Math.imul(key, 0x9e3779b1) >>> 7;
    for (slot &= mask; this.#keys[slot] !== key && this.#keys[slot] !== -1; ) slot = (slot + 1) & mask;
    return slot;
  }

  #insert(key: number, target: number): void {
    if (++this.#edges * 2 > this.#keys.length) this.#grow();
    const slot = this.#slot(key);
    this.#keys[slot] = key;
    this.#targets[slot] = target;
  }

  #grow(): void {
    const [keys, targets] = [this.#keys, this.#targets];
    this.#keys = new Int32Array(keys.length * 2).fill(-1);
    this.#targets = new Int32Array(keys.length * 2);
    keys.forEach((key, i) => {
      if (key === -1) return;
      const slot = this.#slot(key);
      this.#keys[slot] = key;
      this.#targets[slot] = targets[i] as number;
    });
  }
}
