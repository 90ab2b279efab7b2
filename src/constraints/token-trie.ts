// The tokens of a vocabulary as a trie over their bytes, in flat arrays in the order of a walk: below a node stand its
// children, each with everything below it. So a walk over all tokens is a loop, and leaving a part out is one jump.

import { TokenizerError } from "../errors.js";
import { PairTable } from "../tokenizers/pair-table.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";

/** Nodes and tokens between two steps of making a trie: a millisecond or so. */
const stepSize = 4096;

/** The arrays of a trie, as the class has them. */
type TrieParts = Pick<TokenTrie, "bytes" | "depths" | "ends" | "tokens" | "duplicates" | "maxDepth" | "bytesOf">;

/** The trie of a vocabulary. Node 0 is the root. */
export class TokenTrie {
  /** By node: the byte that leads to it. */
  readonly bytes: Uint8Array;
  /** By node: the number of bytes that lead to it. */
  readonly depths: Uint16Array;
  /** By node: the node after all that are below it. */
  readonly ends: Int32Array;
  /** By node: the token that ends there, or -1. */
  readonly tokens: Int32Array;
  /** Pairs of a token in the trie and another of the same bytes. */
  readonly duplicates: readonly (readonly [number, number])[];
  /** The number of bytes of the longest token. */
  readonly maxDepth: number;
  /** By id: the bytes of a token; undefined where it has none. */
  readonly bytesOf: readonly (Uint8Array | undefined)[];

  private constructor({ bytes, depths, ends, tokens, duplicates, maxDepth, bytesOf }: TrieParts) {
    this.bytes = bytes;
    this.depths = depths;
    this.ends = ends;
    this.tokens = tokens;
    this.duplicates = duplicates;
    this.maxDepth = maxDepth;
    this.bytesOf = bytesOf;
  }

  /**
   * Makes a trie in steps.
   *
   * @param bytesOf by id, the bytes of each token; those of more than 256 bytes are left out
   */
  static *build(bytesOf: readonly (Uint8Array | undefined)[]): Generator<void, TokenTrie, void> {
    const { byteOf, tokenOf, firstChild, nextSibling, duplicates } = yield* linkedTrie(bytesOf);
    const size = byteOf.length;
    const [bytes, depths] = [new Uint8Array(size), new Uint16Array(size)];
    const [ends, tokens] = [new Int32Array(size), new Int32Array(size)];
    // Nodes are numbered anew in the order of a walk. Those on the way to the current one end when it is left.
    const path: number[] = [];
    const waiting: [linked: number, depth: number][] = [[0, 0]];
    let [next, maxDepth] = [0, 0];
    for (let item = waiting.pop(); item; item = waiting.pop()) {
      const [linked, depth] = item;
      while (path.length > depth) ends[path.pop() as number] = next;
      path.push(next);
      bytes[next] = byteOf[linked] as number;
      depths[next] = depth;
      tokens[next++] = tokenOf[linked] as number;
      maxDepth = Math.max(maxDepth, depth);
      for (let child = firstChild[linked] as number; child >= 0; child = nextSibling[child] as number) {
        waiting.push([child, depth + 1]);
      }
      if (next % stepSize === 0) yield;
    }
    for (const node of path) ends[node] = size;
    return new TokenTrie({ bytes, depths, ends, tokens, duplicates, maxDepth, bytesOf });
  }

  /** The child of a node by a byte, or -1. */
  child(node: number, byte: number): number {
    const end = this.ends[node] as number;
    for (let child = node + 1; child < end; child = this.ends[child] as number) {
      if (this.bytes[child] === byte) return child;
    }
    return -1;
  }

  /** The longest token at the beginning of bytes from `start` on; its length is 0 where there is none. */
  longestMatch(bytes: ArrayLike<number>, start: number): { readonly token: number; readonly length: number } {
    let [token, length] = [-1, 0];
    let node = 0;
    for (let at = start; at < bytes.length; at++) {
      node = this.child(node, bytes[at] as number);
      if (node < 0) break;
      if ((this.tokens[node] as number) >= 0) [token, length] = [this.tokens[node] as number, at + 1 - start];
    }
    return { token, length };
  }
}

const maxTokenBytes = 256;

/** A trie whose nodes are linked to their children, by node: node 0 is the root; -1 stands for none. */
function* linkedTrie(bytesOf: readonly (Uint8Array | undefined)[]) {
  const edges = new PairTable(2 ** 17);
  const [byteOf, tokenOf, firstChild, nextSibling] = [[0], [-1], [-1], [-1]];
  const duplicates: [number, number][] = [];
  for (const [id, bytes] of bytesOf.entries()) {
    if (id % stepSize === 0) yield;
    if (!bytes || bytes.length === 0 || bytes.length > maxTokenBytes) continue;
    let node = 0;
    for (const byte of bytes) {
      let child = edges.get(node, byte);
      if (child < 0) {
        child = byteOf.push(byte) - 1;
        tokenOf.push(-1);
        firstChild.push(-1);
        nextSibling.push(firstChild[node] as number);
        firstChild[node] = child;
        edges.set(node, byte, child);
      }
      node = child;
    }
    if ((tokenOf[node] as number) < 0) tokenOf[node] = id;
    else duplicates.push([tokenOf[node] as number, id]);
  }
  return { byteOf, tokenOf, firstChild, nextSibling, duplicates };
}

/** A trie takes megabytes and tens of milliseconds, so each tokenizer has one. */
const tries = new WeakMap<Tokenizer, Map<number, TokenTrie>>();

/**
 * The trie of the tokens that a model may generate, made in steps where there is none yet.
 *
 * @param vocabulary the number of ids of the model
 * @throws TokenizerError for a tokenizer whose tokens have no bytes of their own
 */
export function* trieOf(tokenizer: Tokenizer, vocabulary: number): Generator<void, TokenTrie, void> {
  let byVocabulary = tries.get(tokenizer);
  if (!byVocabulary) {
    byVocabulary = new Map();
    tries.set(tokenizer, byVocabulary);
  }
  let trie = byVocabulary.get(vocabulary);
  if (!trie) {
    const { unusedIds = [], endOfText, vocabularySize } = tokenizer;
    if (!tokenizer.bytesOf) {
      throw new TokenizerError(
        "constraints need a tokenizer whose tokens are byte strings (World, byte-level tokenizer.json, bytes); this one has no bytesOf",
      );
    }
    const without = new Set([...unusedIds, endOfText]);
    const size = Math.min(vocabulary, vocabularySize);
    const bytesOf: (Uint8Array | undefined)[] = [];
    for (let id = 0; id < size; id++) {
      if (id % stepSize === 0) yield;
      bytesOf.push(without.has(id) ? undefined : tokenizer.bytesOf(id));
    }
    trie = yield* TokenTrie.build(bytesOf);
    byVocabulary.set(vocabulary, trie);
  }
  return trie;
}
