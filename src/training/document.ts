// Texts to learn from, in memory: documents in parts, and what of them is held out.

/** A self-contained text, which does not continue another one. */
export interface Document {
  readonly name: string;
  /** The text in order; more than one where it is long. They begin where no token of a byte-level BPE crosses. */
  readonly parts: readonly string[];
  /** Of a conversation, for each part whether it is learned or only read; where it is absent, all of them are. */
  readonly learned?: readonly boolean[];
}

/** Documents to learn from, and what is held out to measure with. */
export interface SplitDocuments {
  readonly training: readonly Document[];
  readonly validation: readonly Document[];
}

/** Documents up to this number give their ends for validation; more, as lines of JSON often are, whole documents. */
export const fewDocuments = 256;
/** Characters of a part, about. */
const partLength = 2 ** 17;

/** A document of a text in memory. */
export function documentOf(name: string, text: string): Document {
  return { name, parts: partsOf(text) };
}

/** Cuts a text where no token of a byte-level BPE crosses. */
export function partsOf(text: string): string[] {
  const parts: string[] = [];
  for (let at = 0; at < text.length; ) {
    const end = at + partLength < text.length ? at + lastBoundary(text.slice(at, at + partLength)) : text.length;
    parts.push(text.slice(at, end));
    at = end;
  }
  return parts;
}

/**
 * Holds out the last part of each document; where there are many, the last documents instead.
 *
 * @param share of the characters that is held out, from 0 to 0.5
 */
export function holdOut(documents: readonly Document[], share: number): SplitDocuments {
  if (share === 0) return { training: documents, validation: [] };
  if (documents.length > fewDocuments) {
    const kept = Math.floor(documents.length * (1 - share));
    return { training: documents.slice(0, kept), validation: documents.slice(kept) };
  }
  const training: Document[] = [];
  const validation: Document[] = [];
  for (const document of documents) {
    const length = document.parts.reduce((sum, part) => sum + part.length, 0);
    const [before, after] = cut(document, Math.floor(length * (1 - share)));
    training.push(before);
    if (after.parts.length > 0) validation.push(after);
  }
  return { training, validation };
}

/** What lies before and after a character, or the one behind it, so that none is cut in two. */
function cut({ name, parts, learned }: Document, at: number): [before: Document, after: Document] {
  const pieces: { part: string; isLearned: boolean; isBefore: boolean }[] = [];
  let rest = at;
  parts.forEach((part, i) => {
    const end = rest > 0 && /[\udc00-\udfff]/.test(part[rest] ?? "") ? rest + 1 : Math.max(0, rest);
    const isLearned = learned?.[i] ?? true;
    if (end > 0) pieces.push({ part: part.slice(0, end), isLearned, isBefore: true });
    if (end < part.length) pieces.push({ part: part.slice(end), isLearned, isBefore: false });
    rest -= part.length;
  });
  const side = (before: boolean): Document => {
    const own = pieces.filter(({ isBefore }) => isBefore === before);
    const flags = learned && { learned: own.map(({ isLearned }) => isLearned) };
    return { name, parts: own.map(({ part }) => part), ...flags };
  };
  return [side(true), side(false)];
}

/**
 * Where a text can be cut: before the last blank that follows something else, which no piece of GPT-2's pattern crosses; at its
 * end where there is none.
 */
export function lastBoundary(text: string): number {
  for (let i = text.length - 1; i > 0; i--) {
    if (/\s/.test(text[i] as string) && /\S/.test(text[i - 1] as string)) return i;
  }
  return /[\ud800-\udbff]$/.test(text) && text.length > 1 ? text.length - 1 : text.length;
}
