// Applies the merges of a byte-pair encoding to one piece of text, in n log n steps: a piece without spaces, such as
// a line of base64 or a Chinese text without punctuation, may be hundreds of thousands of characters long. The result
// is the same as that of the method `bpe` in @huggingface/tokenizers, which takes seconds for such a piece.
//
// Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units", arXiv 1508.07909,
// section 3.2.

import TinyQueue from "tinyqueue";
import { PairTable } from "./pair-table.js";

/**
 * The merges of an encoding: which symbol a pair becomes. Of two pairs, the one with the lower rank is merged first.
 */
interface Merges {
  /** The rank of a pair of symbols. */
  readonly ranks: PairTable;
  /** The symbol that a pair becomes, by the rank of the pair. */
  readonly merged: readonly number[];
}

/** Pieces up to this length are cached, up to this number of them, because the words of a language recur. */
const maxCachedLength = 64;
const maxCached = 20_000;
/** Stands for a character that is in no merge. */
const unmergeable = -1;
/** Stands for a symbol that was merged into the one before it. */
const mergedAway = -2;

/**
 * Prepares the merges of an encoding.
 *
 * @param merges the pairs that are merged, as text, those with precedence first
 * @returns a function that cuts a piece into the texts of its tokens
 */
export function bytePairMerges(merges: readonly (readonly string[])[]): (piece: string) => string[] {
  const symbols = new Map<string, number>();
  const texts: string[] = [];
  const symbolOf = (text: string): number => {
    let symbol = symbols.get(text);
    if (symbol === undefined) {
      symbol = texts.push(text) - 1;
      symbols.set(text, symbol);
    }
    return symbol;
  };
  const ranks = new PairTable(merges.length);
  const merged = merges.map(([left = "", right = ""], rank) => {
    ranks.set(symbolOf(left), symbolOf(right), rank);
    return symbolOf(left + right);
  });
  const cache = new Map<string, string[]>();
  return (piece) => {
    const known = cache.get(piece);
    if (known) return known;
    const characters = Array.from(piece);
    const word = Int32Array.from(characters, (character) => symbols.get(character) ?? unmergeable);
    const tokens = mergedWord(word, { ranks, merged }).map(
      (at) => texts[word[at] as number] ?? (characters[at] as string),
    );
    if (piece.length <= maxCachedLength) {
      if (cache.size >= maxCached) cache.clear();
      cache.set(piece, tokens);
    }
    return tokens;
  };
}

/**
 * Merges the symbols of a word in place: always the pair of the lowest rank, and the leftmost of equal ones.
 *
 * @returns the positions of the remaining symbols in the word
 */
function mergedWord(word: Int32Array, { ranks, merged }: Merges): number[] {
  const { length } = word;
  const next = Int32Array.from(word, (_, at) => at + 1);
  const previous = Int32Array.from(word, (_, at) => at - 1);
  const rankAt = (at: number): number => {
    const after = next[at] as number;
    if (after >= length || (word[at] as number) < 0 || (word[after] as number) < 0) return -1;
    return ranks.get(word[at] as number, word[after] as number);
  };
  // A candidate is a single number that sorts as it should: its rank, then its place.
  const candidates: number[] = [];
  for (let at = 0; at < length; at++) {
    const rank = rankAt(at);
    if (rank >= 0) candidates.push(rank * length + at);
  }
  const queue = new TinyQueue(candidates, (a, b) => a - b);
  for (let candidate = queue.pop(); candidate !== undefined; candidate = queue.pop()) {
    const at = candidate % length;
    const rank = (candidate - at) / length;
    if (rankAt(at) !== rank) continue; // one of the two has been merged with another symbol
    const after = next[at] as number;
    const following = next[after] as number;
    word[at] = merged[rank] as number;
    word[after] = mergedAway;
    next[at] = following;
    if (following < length) previous[following] = at;
    for (const left of [previous[at] as number, at]) {
      const found = left < 0 ? -1 : rankAt(left);
      if (found >= 0) queue.push(found * length + left);
    }
  }
  const remaining: number[] = [];
  for (let at = 0; at < length; at = next[at] as number) remaining.push(at);
  return remaining;
}
