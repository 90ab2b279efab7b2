// A file on a server that supports range requests. Reading a checkpoint takes a thousand small ranges, and then all
// of its bytes, mostly in order; one request for each would take longer than transferring the bytes. So the file is
// fetched in large pieces, several at once and ahead of what is read. For a large file the pieces are kept until
// others replace them. Small reads, which are spread over the whole file before the weights are read in order, fetch
// small pieces.

import { type ByteSource, checkRange } from "../byte-source.js";
import { CheckpointError } from "../errors.js";
import type { OnDownload } from "./download.js";
import { checkStatus, exchange, isEncoded, TransientError, withRetries } from "./exchange.js";

/** The size of a piece, in bytes. */
export const pieceSize: number = 2 ** 23;
/** The size of a piece for small reads from a large file, in bytes. */
const smallPieceSize = 2 ** 16;
/** A file of at most this size, in bytes, is kept whole while it is read. */
const maxKept = 2 ** 27;
/** The bytes of large pieces, and of small pieces, that are kept for a larger file. */
const cacheSize = 2 ** 26;
const requestsAtOnce = 6;
const piecesAhead = 2;

/** The facts about a file in the response to a range request. */
export interface RangeResponse {
  readonly total: number;
  /** A text that changes when the file changes; undefined where the server does not send one. */
  readonly version: string | undefined;
}

/**
 * The size and the version of the file, from a response that contains the requested range; undefined when the
 * response does not say.
 *
 * @throws CheckpointError when the response contains a range other than the one requested
 */
export function rangeResponseOf(
  url: string,
  response: Response,
  start: number,
  end: number,
): RangeResponse | undefined {
  const text = response.headers.get("content-range");
  const [, first, last, all] = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(text ?? "") ?? [];
  if (all === undefined || isEncoded(response)) return undefined;
  const total = Number(all);
  if (Number(first) !== start || Number(last) !== Math.min(end, total) - 1 || !Number.isSafeInteger(total)) {
    throw new CheckpointError(url, `requested bytes ${start} to ${end - 1}, but the server responded with "${text}"`);
  }
  const version = response.headers.get("etag") ?? response.headers.get("last-modified") ?? undefined;
  return { total, version };
}

/** The header that requests the bytes from `start` up to, but not including, `end`. */
export function rangeHeader(start: number, end: number): { range: string } {
  return { range: `bytes=${start}-${end - 1}` };
}

/** Reads a body of exactly `size` bytes. @throws CheckpointError when there are more or fewer */
export async function readExactly(
  url: string,
  body: AsyncIterable<Uint8Array>,
  size: number,
  onBytes?: (count: number) => void,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(size);
  let filled = 0;
  for await (const part of body) {
    if (filled + part.length > size) throw new CheckpointError(url, `expected ${size} bytes of a range, found more`);
    bytes.set(part, filled);
    filled += part.length;
    onBytes?.(filled);
  }
  if (filled < size) {
    throw new TransientError(url, `the connection was cut: expected ${size} bytes of a range, received ${filled}`);
  }
  return bytes;
}

/**
 * A source over a file on a server that supports range requests.
 *
 * @param start the first piece of the file
 */
export function rangesSource(
  url: string,
  file: RangeResponse,
  start: Uint8Array,
  { onDownload, timeout }: { onDownload?: OnDownload | undefined; timeout?: number | undefined },
): ByteSource {
  const { total } = file;
  const closing = new AbortController();
  const whenFree = limitConcurrency(requestsAtOnce);
  const received = new Map<number, number>([[0, start.length]]);
  let done = start.length;
  const count = (piece: number, bytes: number) => {
    const before = received.get(piece) ?? 0;
    if (bytes <= before) return; // the piece is being fetched a second time
    received.set(piece, bytes);
    done += bytes - before;
    onDownload?.(done, total);
  };
  onDownload?.(done, total);

  const fetchRange = (from: number, to: number, onBytes?: (count: number) => void): Promise<Uint8Array> =>
    whenFree(() =>
      withRetries(() => {
        // Bypasses the browser's cache, which would make requests for one file wait for each other.
        const options = {
          headers: rangeHeader(from, to),
          cache: "no-store",
          signal: closing.signal,
          timeout,
        } as const;
        return exchange(url, options, async (response, body) => {
          checkStatus(url, response);
          const answer = rangeResponseOf(url, response, from, to);
          if (response.status !== 206 || answer?.total !== total || answer.version !== file.version) {
            throw new CheckpointError(url, "the file changed on the server while it was read");
          }
          return readExactly(url, body, to - from, onBytes);
        });
      }),
    );

  const large = new PieceCache(total <= maxKept ? maxKept / pieceSize : cacheSize / pieceSize, (piece) => {
    const from = piece * pieceSize;
    return fetchRange(from, Math.min(total, from + pieceSize), (bytes) => count(piece, bytes));
  });
  large.put(0, start);
  const small = new PieceCache(cacheSize / smallPieceSize, (piece) => {
    const from = piece * smallPieceSize;
    return fetchRange(from, Math.min(total, from + smallPieceSize));
  });
  const lastPiece = Math.ceil(total / pieceSize) - 1;
  let lastRead = 0;

  /** @param ahead how many pieces behind those that are read are fetched */
  async function readBy(cache: PieceCache, size: number, offset: number, target: Uint8Array, ahead = 0): Promise<void> {
    const first = Math.floor(offset / size);
    const last = Math.floor((offset + target.byteLength - 1) / size);
    for (let piece = first; piece <= last; piece++) {
      const reading = cache.get(piece);
      for (let next = piece + 1; next <= Math.min(last + ahead, piece + requestsAtOnce - 1); next++)
        cache.prefetch(next);
      const bytes = await reading;
      const from = Math.max(offset, piece * size);
      const part = bytes.subarray(from - piece * size, offset + target.byteLength - piece * size);
      target.set(part, from - offset);
    }
  }

  const source: ByteSource = {
    name: url,
    size: total,
    async readInto(offset, target) {
      checkRange(source, offset, target.byteLength);
      if (target.byteLength === 0) return;
      const piece = Math.floor(offset / pieceSize);
      const last = Math.floor((offset + target.byteLength - 1) / pieceSize);
      if (total > maxKept && target.byteLength <= smallPieceSize) {
        const has = piece === last && large.has(piece);
        return has ? readBy(large, pieceSize, offset, target) : readBy(small, smallPieceSize, offset, target);
      }
      const inOrder = piece === lastRead || piece === lastRead + 1;
      lastRead = last;
      await readBy(large, pieceSize, offset, target, inOrder ? Math.min(piecesAhead, lastPiece - last) : 0);
    },
    async close() {
      closing.abort();
      large.clear();
      small.clear();
    },
  };
  return source;
}

/** A cache of pieces of a file by number, which evicts the least recently used. */
class PieceCache {
  readonly #pieces = new Map<number, Promise<Uint8Array>>();
  readonly #capacity: number;
  readonly #fetch: (piece: number) => Promise<Uint8Array>;

  constructor(capacity: number, fetch: (piece: number) => Promise<Uint8Array>) {
    this.#capacity = capacity;
    this.#fetch = fetch;
  }

  has(piece: number): boolean {
    return this.#pieces.has(piece);
  }

  put(piece: number, bytes: Uint8Array): void {
    this.#pieces.set(piece, Promise.resolve(bytes));
  }

  /** Starts to fetch a piece, or keeps it from being evicted before others. A failure is reported when the piece is read. */
  prefetch(piece: number): void {
    this.get(piece).catch(() => {});
  }

  get(piece: number): Promise<Uint8Array> {
    const found = this.#pieces.get(piece);
    const bytes = found ?? this.#fetch(piece);
    this.#pieces.delete(piece);
    this.#pieces.set(piece, bytes); // the last one is the most recently used
    if (!found) {
      bytes.catch(() => {
        if (this.#pieces.get(piece) === bytes) this.#pieces.delete(piece);
      });
      const oldest = this.#pieces.keys().next().value;
      if (this.#pieces.size > this.#capacity && oldest !== undefined) this.#pieces.delete(oldest);
    }
    return bytes;
  }

  clear(): void {
    this.#pieces.clear();
  }
}

/** Makes a function that runs at most `limit` tasks at once; others wait for their turn. */
function limitConcurrency(limit: number): <T>(task: () => Promise<T>) => Promise<T> {
  let running = 0;
  const waiting: (() => void)[] = [];
  return async (task) => {
    if (running >= limit) await new Promise<void>((resolve) => waiting.push(resolve));
    else running++;
    try {
      return await task();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else running--;
    }
  };
}
