// Trains a byte-level BPE tokenizer on text, in Hugging Face's tokenizer.json format. Algorithm, pattern and alphabet
// are those of GPT-2, so any library that reads such files can use the result.
//
// Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units", arXiv 1508.07909,
// section 3.2; over bytes: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, section 2.2.

import TinyQueue from "tinyqueue";
import { TokenizerError } from "../errors.js";
import { uninterrupted } from "../interruptible.js";
import { byteLevelCharacters } from "./byte-level.js";
import type { Tokenizer } from "./tokenizer.js";

/** GPT-2's pattern of pieces that no token crosses (https://github.com/openai/gpt-2, src/encoder.py). */
const pieces = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

export const endOfText = "<|endoftext|>";
/** The smallest vocabulary: the end-of-text token, and a token for every byte. */
const minVocabulary = 257;
const maxVocabulary = 2 ** 20;
/** Longer pieces are counted in parts of this length, since a text without spaces would otherwise be a single piece. */
const maxPieceLength = 64;

/** The number of words that are counted between two pauses. */
const wordsPerPause = 4096;

/** A distinct piece of text: its symbols, fewer with every merge, and how often it occurs. */
interface Word {
  symbols: number[];
  readonly count: number;
}

/** How often a pair of neighbouring symbols occurs, and the words in which it has occurred at some time. */
interface Pair {
  count: number;
  readonly words: Set<number>;
}

interface Candidate {
  readonly left: number;
  readonly right: number;
  readonly count: number;
}

/**
 * Trains a byte-level BPE tokenizer.
 *
 * @param texts the training texts
 * @param vocabularySize the number of tokens, from 257 to 2^20: the end-of-text token (id 0), every byte, and the
 *   most frequent merges. Texts with few distinct words may give fewer
 * @returns the content of a tokenizer.json, to be written to a file as JSON
 * @throws TokenizerError for a size outside that range
 */
export function trainBytePairEncoding(texts: Iterable<string>, vocabularySize: number): object {
  return uninterrupted(bytePairTraining(texts, vocabularySize));
}

/** The same in steps: it yields after every piece of work that takes a moment, so that the caller can pause or stop. */
export function* bytePairTraining(texts: Iterable<string>, vocabularySize: number): Generator<void, object, void> {
  if (!Number.isInteger(vocabularySize) || vocabularySize < minVocabulary || vocabularySize > maxVocabulary) {
    throw new TokenizerError(
      `expected a vocabulary of ${minVocabulary} (the end-of-text token and 256 bytes) to ${maxVocabulary} tokens, found ` +
        `${vocabularySize}`,
    );
  }
  const characters = byteLevelCharacters();
  // Symbol n is token n + 1, since token 0 is the end-of-text token.
  const symbols = [...characters];
  const merges: [string, string][] = [];
  const merger = new Merger();
  const encoder = new TextEncoder();
  for (const [piece, count] of yield* countPieces(texts)) {
    if (merger.add({ symbols: [...encoder.encode(piece)], count }) % wordsPerPause === 0) yield;
  }
  merger.queuePairs();
  while (symbols.length + 1 < vocabularySize) {
    yield;
    const best = merger.mostFrequent();
    if (!best) break;
    const [left, right] = [symbols[best.left] as string, symbols[best.right] as string];
    merger.merge(best, symbols.length);
    symbols.push(left + right);
    merges.push([left, right]);
  }
  const vocab = Object.fromEntries([[endOfText, 0], ...symbols.map((symbol, i) => [symbol, i + 1])]);
  return tokenizerJson(vocab, merges);
}

/** The pieces of a text that tokens do not cross. */
function* piecesOf(text: string): Generator<string, void, void> {
  for (const [piece] of text.matchAll(pieces)) {
    if (piece.length <= maxPieceLength) yield piece;
    else {
      const characters = [...piece]; // whole characters, however many code units they take
      for (let at = 0; at < characters.length; at += maxPieceLength) {
        yield characters.slice(at, at + maxPieceLength).join("");
      }
    }
  }
}

/**
 * Makes a function that encodes as the tokenizer does, but encodes each distinct piece only once, which is many times
 * faster on long texts. It works only for tokenizers that were trained here.
 */
export function pieceEncoder(tokenizer: Pick<Tokenizer, "encode">): (text: string) => number[] {
  const known = new Map<string, readonly number[]>();
  return (text) => {
    const ids: number[] = [];
    for (const piece of piecesOf(text)) {
      let encoded = known.get(piece);
      if (!encoded) {
        encoded = tokenizer.encode(piece);
        known.set(piece, encoded);
      }
      for (const id of encoded) ids.push(id);
    }
    return ids;
  };
}

/** How often each distinct piece of the texts occurs, in the order of their first occurrence. */
function* countPieces(texts: Iterable<string>): Generator<void, Map<string, number>, void> {
  const counts = new Map<string, number>();
  for (const text of texts) {
    let number = 0;
    for (const piece of piecesOf(text)) {
      counts.set(piece, (counts.get(piece) ?? 0) + 1);
      if (++number % wordsPerPause === 0) yield;
    }
    yield;
  }
  return counts;
}

/** Orders candidates by count, the most frequent first, and equal ones by the age of their symbols. */
function byCount(a: Candidate, b: Candidate): number {
  return b.count - a.count || a.left - b.left || a.right - b.right;
}

/** Counts pairs of neighbouring symbols in all words, and merges them. */
class Merger {
  readonly #words: Word[] = [];
  /** The pairs, by left symbol and then by right symbol. */
  readonly #pairs = new Map<number, Map<number, Pair>>();
  /**
   * Candidates with the counts of the time when they were added. One whose count has changed is added anew when it is
   * reached.
   */
  #queue = new TinyQueue<Candidate>([], byCount);

  /** Counts the pairs of a word. @returns the number of words so far */
  add(word: Word): number {
    const index = this.#words.push(word) - 1;
    for (let i = 0; i + 1 < word.symbols.length; i++) this.#count(word, i, word.count, index);
    return this.#words.length;
  }

  /** Puts all pairs counted so far into the queue. */
  queuePairs(): void {
    const candidates: Candidate[] = [];
    for (const [left, rights] of this.#pairs) {
      for (const [right, { count }] of rights) candidates.push({ left, right, count });
    }
    this.#queue = new TinyQueue(candidates, byCount);
  }

  mostFrequent(): Candidate | undefined {
    for (let top = this.#queue.pop(); top; top = this.#queue.pop()) {
      const count = this.#pairs.get(top.left)?.get(top.right)?.count ?? 0;
      if (count === top.count && count > 0) return top;
      if (count > 0) this.#queue.push({ ...top, count });
    }
    return undefined;
  }

  merge({ left, right }: Candidate, merged: number): void {
    const words = this.#pairs.get(left)?.get(right)?.words ?? new Set();
    const changed = new Set<string>();
    for (const index of words) {
      const word = this.#words[index] as Word;
      for (let i = 0; i + 1 < word.symbols.length; i++) {
        if (word.symbols[i] !== left || word.symbols[i + 1] !== right) continue;
        for (const at of [i - 1, i, i + 1]) this.#count(word, at, -word.count, index);
        word.symbols.splice(i, 2, merged);
        for (const at of [i - 1, i]) {
          if (this.#count(word, at, word.count, index)) changed.add(`${word.symbols[at]} ${word.symbols[at + 1]}`);
        }
      }
    }
    this.#pairs.get(left)?.delete(right);
    for (const pair of changed) {
      const [a, b] = pair.split(" ").map(Number) as [number, number];
      const count = this.#pairs.get(a)?.get(b)?.count ?? 0;
      if (count > 0) this.#queue.push({ left: a, right: b, count });
    }
  }

  /** Adds to the count of the pair at a position in a word. @returns false where there is no pair */
  #count(word: Word, at: number, amount: number, index: number): boolean {
    const [left, right] = [word.symbols[at], word.symbols[at + 1]];
    if (left === undefined || right === undefined) return false;
    const rights = this.#pairs.get(left) ?? new Map<number, Pair>();
    this.#pairs.set(left, rights);
    const pair = rights.get(right) ?? { count: 0, words: new Set() };
    rights.set(right, pair);
    pair.count += amount;
    if (amount > 0) pair.words.add(index);
    return true;
  }
}

function tokenizerJson(vocab: Record<string, number>, merges: readonly [string, string][]): object {
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [
      { id: 0, content: endOfText, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
    ],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      vocab,
      merges: merges.map(([left, right]) => `${left} ${right}`),
    },
  };
}
