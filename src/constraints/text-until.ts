// Free text up to a mark, as an automaton over bytes: how much of the mark stands at the end of what was read (Knuth,
// Morris and Pratt, 1977), together with how much of a character is open, so that the text is UTF-8.

import type { Edge, Expression } from "./expressions.js";

/** What of a character is open: by number, the bytes that continue it and the number after them. */
const openCharacters: readonly (readonly (readonly [low: number, high: number, next: number])[])[] = [
  // 0: none. Then: one, two, three further bytes; and those whose first further byte has a smaller range.
  [
    [0x00, 0x7f, 0],
    [0xc2, 0xdf, 1],
    [0xe0, 0xe0, 4],
    [0xe1, 0xec, 2],
    [0xed, 0xed, 5],
    [0xee, 0xef, 2],
    [0xf0, 0xf0, 6],
    [0xf1, 0xf3, 3],
    [0xf4, 0xf4, 7],
  ],
  [[0x80, 0xbf, 0]],
  [[0x80, 0xbf, 1]],
  [[0x80, 0xbf, 2]],
  [[0xa0, 0xbf, 1]],
  [[0x80, 0x9f, 1]],
  [[0x90, 0xbf, 2]],
  [[0x80, 0x8f, 2]],
];

/**
 * All texts in which a mark does not occur.
 *
 * @param includesMark whether the mark follows, with which the text then ends
 */
export function textBefore(mark: string, includesMark: boolean): Expression {
  const bytes = new TextEncoder().encode(mark);
  const lengthAfter = prefixLengths(bytes);
  const numbers = new Map<string, number>();
  const pairs: [open: number, matched: number][] = [];
  const numberOf = (open: number, matched: number) => {
    const key = `${open} ${matched}`;
    let number = numbers.get(key);
    if (number === undefined) {
      number = pairs.push([open, matched]) - 1;
      numbers.set(key, number);
    }
    return number;
  };
  numberOf(0, 0);
  const edges: Edge[] = [];
  const final: number[] = [];
  for (let from = 0; from < pairs.length; from++) {
    const [open, matched] = pairs[from] as [number, number];
    if (includesMark ? matched === bytes.length : open === 0) final.push(from);
    if (matched === bytes.length) continue;
    for (const [low, high, next] of openCharacters[open] as readonly (readonly [number, number, number])[]) {
      // Bytes that lead to the same node are one edge.
      let first = low;
      for (let byte = low; byte <= high; byte++) {
        const length = lengthAfter(matched, byte);
        if (byte < high && lengthAfter(matched, byte + 1) === length) continue;
        const reads = { kind: "byte", low: first, high: byte } as const;
        if (includesMark || length < bytes.length) edges.push({ from, to: numberOf(next, length), reads });
        first = byte + 1;
      }
    }
  }
  return { kind: "graph", nodes: pairs.length, edges, final };
}

/** How many bytes of the mark stand at the end of a text, from how many stood there before its last byte. */
function prefixLengths(mark: Uint8Array): (matched: number, byte: number) => number {
  const fallback: number[] = [0, 0];
  const after = (matched: number, byte: number): number => {
    for (let length = matched; ; length = fallback[length] as number) {
      if (mark[length] === byte) return length + 1;
      if (length === 0) return 0;
    }
  };
  for (let length = 2; length <= mark.length; length++) {
    fallback[length] = after(fallback[length - 1] as number, mark[length - 1] as number);
  }
  return after;
}
