// The lines of a file of any size, read from a disk as they are wanted.

import { open } from "node:fs/promises";
import { RwkvError } from "../../errors.js";

/** A line that is not empty. */
export interface Line {
  /** Its number in the file, from 1; empty lines count. */
  readonly number: number;
  /** The byte at which the line after it begins. */
  readonly end: number;
  /** Undefined for one that is longer than lines may be, or no UTF-8. */
  readonly text: string | undefined;
}

/** Which lines of a file are read. */
export interface LineRange {
  /** The byte at which the first one begins. */
  readonly from?: number;
  /** The number of that line. */
  readonly number?: number;
  /** The byte before which the last one ends. */
  readonly to?: number;
  /** Bytes of a line, at most. */
  readonly maxBytes: number;
}

const chunkBytes = 2 ** 18;
const [newline, return_] = [0x0a, 0x0d];

/**
 * Reads lines. The last one needs no newline.
 *
 * @throws RwkvError when the file cannot be read
 */
export async function* readLines(path: string, range: LineRange): AsyncGenerator<Line, void, void> {
  const { from = 0, number = 1, to = Number.POSITIVE_INFINITY, maxBytes } = range;
  const failed = (cause: NodeJS.ErrnoException): never => {
    throw new RwkvError(`${path}: cannot be read (${cause.code})`, { cause });
  };
  const file = await open(path, "r").catch(failed);
  try {
    const decoder = new TextDecoder("utf-8", { fatal: true });
    const chunk = new Uint8Array(chunkBytes);
    const parts: Uint8Array[] = [];
    let [at, count, length] = [from, number, 0];
    const take = (end: number): Line | undefined => {
      const bytes = length > maxBytes ? undefined : Buffer.concat(parts);
      parts.length = 0;
      length = 0;
      const line = { number: count++, end };
      if (!bytes) return { ...line, text: undefined };
      const text = decoded(decoder, bytes.at(-1) === return_ ? bytes.subarray(0, -1) : bytes);
      return text?.trim() === "" ? undefined : { ...line, text };
    };
    const keep = (part: Uint8Array) => {
      length += part.length;
      if (length <= maxBytes) parts.push(part.slice());
    };
    for (;;) {
      const { bytesRead } = await file.read(chunk, 0, Math.min(chunkBytes, to - at), at).catch(failed);
      if (bytesRead === 0) break;
      const bytes = chunk.subarray(0, bytesRead);
      let begin = 0;
      for (let end = bytes.indexOf(newline); end >= 0; end = bytes.indexOf(newline, begin)) {
        keep(bytes.subarray(begin, end));
        begin = end + 1;
        const line = take(at + begin);
        if (line) yield line;
      }
      keep(bytes.subarray(begin));
      at += bytesRead;
    }
    const last = length > 0 ? take(at) : undefined;
    if (last) yield last;
  } finally {
    await file.close();
  }
}

function decoded(decoder: TextDecoder, bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes);
  } catch {
    return undefined;
  }
}
