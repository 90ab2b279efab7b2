// Downloads one file in chunks, several at once, into a place that remembers which are there, so that a download that was ended, by
// whatever, goes on where it was. The bytes are summed in their order as they come, and a file whose sum is another is never used.

import { createHasher } from "#platform/checksum";
import { CheckpointError } from "../errors.js";
import { isEncoded, TransientError } from "../http/exchange.js";
import { rangeHeader } from "../http/ranges.js";
import type { PartialFile, Sum } from "../platform/platform.js";
import { ChunkQueue, type ChunkRun } from "./chunk-queue.js";
import { checkHubStatus, type HubSettings, hubExchange, withPatience } from "./hub-requests.js";

/** What is downloaded. */
export interface Download {
  /** The model's name, for errors. */
  readonly name: string;
  readonly url: string;
  readonly size: number;
  /** What the bytes are to add up to, where that is known. */
  readonly sum: Sum | undefined;
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

const requestsAtOnce = 4;
/** The most bytes that one request asks for. */
const largestRequest = 2 ** 24;

/** The server has other bytes than those that are here. */
class ChangedError extends CheckpointError {}

/** A download that goes on where one before it ended. */
export class FileDownload {
  readonly #settings: HubSettings;
  readonly #what: Download;
  readonly #partial: PartialFile;
  readonly #chunks: number;
  /** Ends all requests when one has failed. */
  readonly #ending = new AbortController();
  /** Where the last redirect led, which is asked as long as it answers. */
  #direct: string | undefined;
  /** Resolved when the server has sent a range. */
  readonly #ranged = newPromise();
  #isRanged = false;
  readonly #queue: ChunkQueue;
  /** Requests for what something waits for, beside the others. */
  readonly #hurried: Promise<unknown>[] = [];
  /** Those who wait for a chunk. */
  readonly #waiting = new Map<number, (() => void)[]>();
  #attempt: Promise<string> | undefined;
  /** Bytes of chunks that are here, and of those on their way. */
  #done = 0;
  readonly #arriving = new Map<number, number>();
  #reported = -1;

  /** Nothing is asked for yet. */
  static async open(settings: HubSettings, what: Download, partial: PartialFile): Promise<FileDownload> {
    const download = new FileDownload(settings, what, partial);
    if (!download.isBegun || what.sum || partial.version !== undefined) return download;
    // Nothing would tell whether what comes is of the same version as what is here.
    await partial.restart();
    return new FileDownload(settings, what, partial);
  }

  private constructor(settings: HubSettings, what: Download, partial: PartialFile) {
    this.#settings = settings;
    this.#what = what;
    this.#partial = partial;
    this.#chunks = Math.ceil(what.size / partial.chunkSize);
    for (let chunk = 0; chunk < this.#chunks; chunk++) if (partial.has(chunk)) this.#done += this.#sizeOf(chunk);
    this.#queue = new ChunkQueue(this.#chunks, (chunk) => partial.has(chunk));
    this.#ending.signal.addEventListener("abort", () => {
      for (const chunk of this.#waiting.keys()) this.#wake(chunk);
    });
  }

  /** Whether some of the file is here. */
  get isBegun(): boolean {
    return this.#done > 0;
  }

  /**
   * Downloads what is missing, and puts the file in its place.
   *
   * @returns its path
   * @throws CheckpointError when it cannot be downloaded, or its sum is not the one expected; the signal's reason. What has come stays
   *   for the next time, unless it is wrong
   */
  async download(): Promise<string> {
    const continued = this.isBegun;
    try {
      this.#attempt = this.#run();
      return await this.#attempt;
    } catch (error) {
      this.#ending.abort(error); // for those who wait for a chunk, or will
      if (!(error instanceof ChangedError)) throw error;
      await this.#partial.restart();
      // What was here before may have been of another time; what came now is from one server, which will not do better.
      if (!continued) throw error;
    }
    return new FileDownload(this.#settings, this.#what, this.#partial).#run();
  }

  /** Ends well when what `whenHere` has given was the file's; the download goes on where it was not, and has other bytes then. */
  async whenSound(): Promise<void> {
    await this.#attempt;
  }

  get isWhole(): boolean {
    return this.#done === this.#what.size;
  }

  /** Waits for all chunks. @throws what ended the download, or made it begin anew */
  async whenWhole(): Promise<void> {
    for (let chunk = 0; chunk < this.#chunks; chunk++) await this.whenHere(chunk);
  }

  /** Waits for a chunk. @throws what ended the download, or made it begin anew */
  async whenHere(chunk: number): Promise<void> {
    const { signal } = this.#ending;
    for (;;) {
      signal.throwIfAborted();
      if (this.#partial.has(chunk)) return;
      await new Promise<void>((resolve) => {
        this.#waiting.set(chunk, [...(this.#waiting.get(chunk) ?? []), resolve]);
      });
    }
  }

  /** Asks for chunks before what lies in front of them. */
  hurry(first: number, end: number): void {
    this.#queue.hurry(first, end);
    if (!this.#isRanged) return; // they are the next
    // Beside the other requests, which may be busy for long.
    const downloadUrgent = async () => {
      const next = () => this.#queue.takeUrgent(this.#mostAtOnce);
      for (let run = next(); run; run = next()) await this.#download(run);
    };
    this.#hurried.push(this.#ended(downloadUrgent()));
  }

  async #run(): Promise<string> {
    const { name, sum, size, signal } = this.#what;
    signal?.throwIfAborted();
    const stop = () => this.#ending.abort(signal?.reason);
    signal?.addEventListener("abort", stop);
    try {
      this.#report();
      const summing = sum ? this.#sum(sum) : undefined;
      await Promise.all([this.#ended(this.#downloadAll()), this.#ended(Promise.resolve(summing))]);
      this.#ending.signal.throwIfAborted();
      const found = await summing;
      if (sum && found !== sum.hex) {
        throw new ChangedError(
          name,
          `${size} bytes were downloaded, but they are not the file: expected the ${sum.algorithm} ${sum.hex}, found ${found}`,
        );
      }
      return await this.#partial.finish();
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  #sizeOf(chunk: number): number {
    return Math.min(this.#partial.chunkSize, this.#what.size - chunk * this.#partial.chunkSize);
  }

  /** Where one of several fails all are ended, and waited for: nothing of them may still write. */
  #ended(work: Promise<unknown>): Promise<unknown> {
    return work.catch((error) => this.#ending.abort(error));
  }

  /** One request alone, until it is seen that the server has ranges; then several at once. */
  async #downloadAll(): Promise<void> {
    const downloadMore = async () => {
      const next = () => this.#queue.take(this.#mostAtOnce);
      for (let run = next(); run; run = next()) await this.#download(run);
    };
    const first = this.#ended(downloadMore());
    await Promise.race([first, this.#ranged.promise]);
    await Promise.all([first, ...Array.from({ length: requestsAtOnce - 1 }, () => this.#ended(downloadMore()))]);
    await Promise.all(this.#hurried);
  }

  /** The most chunks that one request asks for. */
  get #mostAtOnce(): number {
    const part = Math.ceil(this.#chunks / (2 * requestsAtOnce)); // of a small file all have some
    return Math.max(1, Math.min(part, Math.floor(largestRequest / this.#partial.chunkSize)));
  }

  /** Chunks in one request, which is repeated as far as it fails. */
  async #download([first, end]: ChunkRun): Promise<void> {
    let before = this.#done;
    // By whole chunks: a server that cuts each connection after a few bytes is not worth patience.
    const progressed = () => {
      const more = this.#done > before;
      before = this.#done;
      return more;
    };
    await withPatience(() => this.#fetch(first, end), this.#ending.signal, progressed);
  }

  /** Fetches those of the chunks up to `end` that have not come. */
  async #fetch(begin: number, end: number): Promise<void> {
    let first = begin;
    while (first < end && this.#partial.has(first)) first++;
    if (first === end) return;
    const { url, name, size } = this.#what;
    const from = first * this.#partial.chunkSize;
    const to = Math.min(size, end * this.#partial.chunkSize);
    const { version } = this.#partial;
    const headers = {
      ...rangeHeader(from, to),
      "accept-encoding": "identity",
      // Of a date pages of other origins would have to ask first, which few servers allow; it is compared when the response is here.
      ...(version?.startsWith('"') && { "if-range": version }),
    };
    const at = this.#direct ?? url;
    const request = { headers, signal: this.#ending.signal };
    await hubExchange(this.#settings, name, at, request, async (response, body, place) => {
      const { status } = response;
      if (at !== url && [400, 401, 403, 404, 410].includes(status)) {
        if (this.#direct === at) this.#direct = undefined; // a signed URL lives for a while only
        throw new TransientError(name, `the storage of the hub refused (status ${status})`);
      }
      checkHubStatus(this.#settings, name, response);
      if (status === 206) {
        await this.#checkRange(response, from, to);
        this.#direct = place === url ? undefined : place;
        await this.#take(first, end, body);
      } else {
        await this.#checkWhole(response);
        await this.#take(0, this.#chunks, body);
      }
    });
  }

  /** @throws CheckpointError unless the response has the bytes that were asked for */
  async #checkRange(response: Response, from: number, to: number): Promise<void> {
    const { name, size, sum } = this.#what;
    const range = response.headers.get("content-range");
    // Pages of other origins may not see it; then the sum must do, or the length, which they always may.
    const length = response.headers.get("content-length");
    if (range === null && !sum && Number(length ?? Number.NaN) !== to - from) {
      const found = length ?? "a size that it does not tell";
      throw new ChangedError(name, `expected a part of ${to - from} bytes, but the server has one of ${found}`);
    }
    if (range !== null && range !== `bytes ${from}-${to - 1}/${size}`) {
      const total = Number(/\/(\d+)$/.exec(range)?.[1]);
      if (total !== size && !Number.isNaN(total)) {
        throw new ChangedError(name, `expected a file of ${size} bytes, but the server has one of ${total}`);
      }
      throw new CheckpointError(name, `requested bytes ${from} to ${to - 1}, received "${range.slice(0, 80)}"`);
    }
    if (isEncoded(response)) throw new CheckpointError(name, "the server compresses what it was asked for as it is");
    const { version } = this.#partial;
    if (version !== undefined && !version.startsWith('"') && version !== response.headers.get("last-modified")) {
      throw new ChangedError(name, "the file changed on the server while it was downloaded");
    }
    await this.#noteVersion(response);
    this.#isRanged = true;
    this.#ranged.resolve();
  }

  /**
   * A server without ranges sends all; one that has ranges sends all when the file is no longer what it was.
   *
   * @throws CheckpointError when it is another file
   */
  async #checkWhole(response: Response): Promise<void> {
    const { name, size, sum } = this.#what;
    const { version } = this.#partial;
    if (version !== undefined && version !== response.headers.get("last-modified")) {
      await this.#partial.setVersion(undefined);
      if (!sum) throw new ChangedError(name, "the file changed on the server while it was downloaded");
      // Other machines of a storage may have other versions of one content; the sum will tell.
      throw new TransientError(name, "the server has another version of the file than before");
    }
    // Of what is here nothing tells that it belongs to this.
    if (!sum && this.isBegun && version === undefined)
      throw new ChangedError(name, "the server sends the whole file in place of a part");
    const length = response.headers.get("content-length");
    if (length !== null && !isEncoded(response) && Number(length) !== size) {
      throw new ChangedError(name, `expected a file of ${size} bytes, but the server has one of ${length}`);
    }
  }

  /** Takes chunks from a body, each as soon as it is whole. */
  async #take(first: number, end: number, body: AsyncIterable<Uint8Array>): Promise<void> {
    const { name, size } = this.#what;
    const expected = Math.min(size, end * this.#partial.chunkSize) - first * this.#partial.chunkSize;
    let chunk = first;
    let bytes = new Uint8Array(this.#sizeOf(chunk));
    let filled = 0;
    let received = 0;
    try {
      for await (const piece of body) {
        received += piece.length;
        for (let at = 0; at < piece.length; ) {
          if (chunk >= end) throw new ChangedError(name, `expected ${expected} bytes, received more`);
          const part = piece.subarray(at, at + bytes.length - filled);
          bytes.set(part, filled);
          filled += part.length;
          at += part.length;
          this.#arrived(chunk, filled);
          if (filled < bytes.length) continue;
          await this.#store(chunk, bytes);
          chunk++;
          filled = 0;
          bytes = new Uint8Array(chunk < end ? this.#sizeOf(chunk) : 0);
        }
      }
    } finally {
      if (chunk < end) this.#arriving.delete(chunk); // the one behind is another request's
    }
    if (chunk < end) {
      throw new TransientError(name, `the connection was cut: expected ${expected} bytes, received ${received}`);
    }
  }

  /** Notes what tells versions apart: an ETag, or where nothing sums the file up its date. */
  async #noteVersion({ headers }: Response): Promise<void> {
    if (this.#partial.version !== undefined) return;
    const etag = headers.get("etag");
    // A weak one does not say that bytes are the same, and is not allowed with ranges.
    const version = etag?.startsWith('"') ? etag : this.#what.sum ? null : headers.get("last-modified");
    if (version) await this.#partial.setVersion(version);
  }

  async #store(chunk: number, bytes: Uint8Array): Promise<void> {
    this.#ending.signal.throwIfAborted();
    if (!this.#partial.has(chunk)) {
      await this.#partial.write(chunk, bytes);
      this.#done += bytes.length;
    }
    this.#arriving.delete(chunk);
    this.#wake(chunk);
  }

  #wake(chunk: number): void {
    for (const resolve of this.#waiting.get(chunk) ?? []) resolve();
    this.#waiting.delete(chunk);
  }

  /** Sums chunks in their order, waiting for each. */
  async #sum({ algorithm }: Sum): Promise<string> {
    const hasher = await createHasher(algorithm, this.#what.size);
    for (let chunk = 0; chunk < this.#chunks; chunk++) {
      await this.whenHere(chunk);
      hasher.update(await this.#partial.read(chunk));
    }
    return hasher.hex();
  }

  #arrived(chunk: number, bytes: number): void {
    if (!this.#partial.has(chunk)) this.#arriving.set(chunk, bytes);
    this.#report();
  }

  /** Progress never goes back, though a chunk may come twice. */
  #report(): void {
    const { onProgress, size } = this.#what;
    let done = this.#done;
    for (const bytes of this.#arriving.values()) done += bytes;
    if (done <= this.#reported) return;
    this.#reported = done;
    onProgress?.(done, size);
  }
}

function newPromise(): { promise: Promise<void>; resolve: () => void } {
  let resolve = () => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
