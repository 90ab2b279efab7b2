// Ranges of code points as sequences of ranges of bytes, which is how UTF-8 writes them.

import type { CodePointRange } from "./expressions.js";

/** A range of bytes, both ends included. */
export type ByteRange = readonly [low: number, high: number];

/** The largest code points that take one, two and three bytes, and the borders of the surrogates, which have none. */
const borders = [0x7f, 0x7ff, 0xd7ff, 0xdfff, 0xffff];

/**
 * The sequences of byte ranges whose products are exactly the characters of a range. Surrogates, which UTF-8 does not
 * write, are left out.
 */
export function utf8Sequences([low, high]: CodePointRange): ByteRange[][] {
  const sequences: ByteRange[][] = [];
  const split = (from: number, to: number): void => {
    if (from > to || (from >= 0xd800 && to <= 0xdfff)) return;
    const border = borders.find((last) => from <= last && last < to);
    if (border !== undefined) return splitAfter(from, border, to);
    // Continuation bytes must run over their whole range wherever a byte before them does not stay the same.
    for (let shift = 6; from > 0x7f && shift <= 18; shift += 6) {
      const mask = 2 ** shift - 1;
      if (from >> shift === to >> shift) break;
      if ((from & mask) !== 0) return splitAfter(from, from | mask, to);
      if ((to & mask) !== mask) return splitAfter(from, (to & ~mask) - 1, to);
    }
    const first = utf8Bytes(from);
    const last = utf8Bytes(to);
    sequences.push(first.map((byte, i) => [byte, last[i] as number]));
  };
  const splitAfter = (from: number, last: number, to: number) => {
    split(from, last);
    split(last + 1, to);
  };
  split(low, high);
  return sequences;
}

function utf8Bytes(code: number): number[] {
  const continuation = (shift: number) => 0x80 | ((code >> shift) & 0x3f);
  if (code <= 0x7f) return [code];
  if (code <= 0x7ff) return [0xc0 | (code >> 6), continuation(0)];
  if (code <= 0xffff) return [0xe0 | (code >> 12), continuation(6), continuation(0)];
  return [0xf0 | (code >> 18), continuation(12), continuation(6), continuation(0)];
}
