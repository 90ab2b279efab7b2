// Small vocabularies, and walks over the tokens that a grammar allows, which stand for a model that samples anything.

import type { Constraint, Tokenizer } from "rwkv";
import { tokenizerOfTokens } from "#rwkv/tokenizers/world";

/** A tokenizer of all bytes and some longer tokens; token 0 ends a text. */
export function smallTokenizer(longer: readonly string[]): Tokenizer {
  const bytes = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
  const texts = longer.map((text) => new TextEncoder().encode(text));
  const tokens: Uint8Array[] = [];
  [...bytes, ...texts].forEach((token, i) => {
    tokens[i + 1] = token;
  });
  return tokenizerOfTokens("small", tokens);
}

/** Tokens that begin, end or lie across the parts of JSON. */
export const jsonTokens = [
  ...[
    '{"',
    '":',
    '":"',
    '","',
    '"}',
    '"},{"',
    '":[',
    '"]',
    "]}",
    "}}",
    "[[",
    "]]",
    '["',
    "[{",
    ',"',
    '":{"',
    '"a',
    'a"',
  ],
  ...[
    "ab",
    "abc",
    "name",
    "true",
    "fals",
    "null",
    "12",
    "123",
    "-1",
    "0.",
    ".5",
    "e1",
    "1e",
    "é",
    "€",
    "aé",
    "😀b",
    "  ",
  ],
  ...[
    "\\n",
    '\\"',
    "\\u00",
    "a,b",
    "id",
    '{"id":',
    "00",
    "99",
    "2024",
    "-0",
    "T1",
    "Z",
    "@a.",
    "://",
    "::",
    "aaaaaaaa",
  ],
];

/**
 * Thousands of tokens of 2 to 12 characters, many of which begin alike: so many that what depends on the stack is found in
 * other ways than for a few. As in real vocabularies, few have a quotation mark within.
 */
export function manyTokens(): string[] {
  const random = randomNumbers(11);
  const letters = [..."aaabbcxyz019 ,.:é€", "\\", "[", "]", "{", "}", "(", ")"];
  const texts = Array.from({ length: 4000 }, () =>
    Array.from({ length: 2 + Math.floor(random() * 11) }, () => letters[Math.floor(random() * letters.length)]).join(
      "",
    ),
  );
  const runs = Array.from({ length: 40 }, (_, i) => ["a", "ab", "x", "é"].map((unit) => unit.repeat(i + 2)));
  const endings = ["a", "ab", "aé", "x09", "1"].flatMap((text) => ['",', '"]', '","', '":'].map((end) => text + end));
  const nested = ["x0", "x01", "0"].flatMap((text) =>
    ["", "a", "aa", "aaa", "ab", "aab", "aaab", "b."].map((end) => `${text},${end}`),
  );
  return [...new Set([...jsonTokens, ...texts, ...runs.flat(), ...endings, ...nested])];
}

/** What the functions of grammars need of a model. */
export function modelOf(tokenizer: Tokenizer): { tokenizer: Tokenizer; info: { vocabulary: number } } {
  return { tokenizer, info: { vocabulary: tokenizer.vocabularySize + 3 } };
}

export function isIn(mask: Uint32Array, id: number): boolean {
  return ((mask[id >>> 5]! >>> (id & 31)) & 1) === 1;
}

export function idsIn(mask: Uint32Array): number[] {
  const ids: number[] = [];
  mask.forEach((word, index) => {
    for (let bit = 0; word !== 0 && bit < 32; bit++) if ((word >>> bit) & 1) ids.push(index * 32 + bit);
  });
  return ids;
}

/** Random numbers in [0, 1) by a seed (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A text that was walked, and whether it came to an end. */
export interface Walk {
  readonly tokens: number[];
  readonly text: string;
  readonly ended: boolean;
}

/**
 * Samples from what is allowed until the text ends, or has so many tokens.
 *
 * @param eagerness how probable the end is where it is allowed
 */
export function walk(
  constraint: Constraint,
  tokenizer: Tokenizer,
  random: () => number,
  { most = 400, eagerness = 0.3, forced = true } = {},
): Walk {
  const reading = constraint.begin!();
  const tokens: number[] = [];
  for (;;) {
    const mustCome = forced ? reading.forcedTokens!(tokens) : [];
    tokens.push(...mustCome);
    const allowed = idsIn(reading.allowedTokens!(tokens)!);
    const mayEnd = reading.mayEnd!(tokens);
    if (allowed.length === 0 && !mayEnd)
      throw new Error(`a dead end after ${JSON.stringify(tokenizer.decode(tokens))}`);
    const ended = allowed.length === 0 || (mayEnd && random() < eagerness);
    if (ended || tokens.length >= most) return { tokens, text: tokenizer.decode(tokens), ended };
    tokens.push(allowed[Math.floor(random() * allowed.length)]!);
  }
}

/** Whether a grammar has a text: read byte by byte, with a tokenizer whose token of byte b is b + 1. */
export function accepts(constraint: Constraint, text: string): boolean {
  const reading = constraint.begin!();
  const tokens: number[] = [];
  for (const byte of new TextEncoder().encode(text)) {
    if (!isIn(reading.allowedTokens!(tokens)!, byte + 1)) return false;
    tokens.push(byte + 1);
  }
  return reading.mayEnd!(tokens);
}
