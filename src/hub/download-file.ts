// Downloads one file in chunks, several at once, into a place that remembers which are there, so that a download that was ended, by
// whatever, goes on where it was. The bytes are summed in their order as they come, and a file whose sum is another is never used.

import { createHasher } from "#platform/checksum";
import { CheckpointError } from "../errors.js";
import { isEncoded, TransientError } from "../http/exchange.js";
import { rangeHeader, readExactly } from "../http/ranges.js";
import type { PartialFile, StoredFile, Sum } from "../platform/platform.js";
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

/** The server has other bytes than those that are here. */
class ChangedError extends CheckpointError {}

/**
 * Downloads what is missing of a file, and puts the file in its place.
 *
 * @throws CheckpointError when it cannot be downloaded, or its sum is not the one expected; the signal's reason. What has come stays for
 *   the next time, unless it is wrong
 */
export async function downloadFile(settings: HubSettings, what: Download, partial: PartialFile): Promise<StoredFile> {
  const first = new FileDownload(settings, what, partial);
  const continued = first.isBegun;
  try {
    return await first.run();
  } catch (error) {
    if (!(error instanceof ChangedError)) throw error;
    await partial.restart();
    // What was here before may have been of another time; what came now is from one server, which will not do better.
    if (!continued) throw error;
  }
  return new FileDownload(settings, what, partial).run();
}

class FileDownload {
  readonly #settings: HubSettings;
  readonly #what: Download;
  readonly #partial: PartialFile;
  readonly #chunks: number;
  /** Ends all requests when one has failed. */
  readonly #ending = new AbortController();
  /** Where the last redirect led, which is asked as long as it answers. */
  #direct: string | undefined;
  #next = 0;
  #summed = 0;
  /** Bytes of chunks that are here, and of those on their way. */
  #done = 0;
  readonly #arriving = new Map<number, number>();
  #reported = -1;

  constructor(settings: HubSettings, what: Download, partial: PartialFile) {
    this.#settings = settings;
    this.#what = what;
    this.#partial = partial;
    this.#chunks = Math.ceil(what.size / partial.chunkSize);
    for (let chunk = 0; chunk < this.#chunks; chunk++) if (partial.has(chunk)) this.#done += this.#sizeOf(chunk);
    this.#ending.signal.addEventListener("abort", () => this.#stored?.());
  }

  /** Whether some of the file is here. */
  get isBegun(): boolean {
    return this.#done > 0;
  }

  async run(): Promise<StoredFile> {
    const { name, sum, size, signal } = this.#what;
    signal?.throwIfAborted();
    const stop = () => this.#ending.abort(signal?.reason);
    signal?.addEventListener("abort", stop);
    try {
      this.#report();
      // Where one fails all are ended, and waited for: nothing of them may still write.
      const ended = (work: Promise<unknown>) => work.catch((error) => this.#ending.abort(error));
      const summing = sum ? this.#sum(sum) : undefined;
      await Promise.all([ended(this.#downloadAll(ended)), ended(Promise.resolve(summing))]);
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

  /** The first chunk alone, which tells whether the server has ranges; then several at once. */
  async #downloadAll(ended: (work: Promise<unknown>) => Promise<unknown>): Promise<void> {
    if (!(await this.#downloadNext())) return;
    const downloadMore = async () => {
      while (await this.#downloadNext());
    };
    await Promise.all(Array.from({ length: requestsAtOnce }, () => ended(downloadMore())));
  }

  /** @returns whether there may be more */
  async #downloadNext(): Promise<boolean> {
    while (this.#next < this.#chunks && this.#partial.has(this.#next)) this.#next++;
    if (this.#next >= this.#chunks) return false;
    const chunk = this.#next++;
    let [seen, done] = [0, this.#done];
    const progressed = () => {
      const more = this.#done > done || (this.#arriving.get(chunk) ?? 0) > seen;
      [seen, done] = [this.#arriving.get(chunk) ?? 0, this.#done];
      return more;
    };
    await withPatience(() => this.#fetch(chunk), this.#ending.signal, progressed);
    return true;
  }

  async #fetch(chunk: number): Promise<void> {
    const { url, name } = this.#what;
    const from = chunk * this.#partial.chunkSize;
    const { version } = this.#partial;
    const headers = {
      ...rangeHeader(from, from + this.#sizeOf(chunk)),
      "accept-encoding": "identity",
      ...(version !== undefined && { "if-range": version }),
    };
    const at = this.#direct ?? url;
    const request = { headers, signal: this.#ending.signal };
    await hubExchange(this.#settings, name, at, request, async (response, body, place) => {
      const { status } = response;
      if (this.#direct !== undefined && [400, 401, 403, 404, 410].includes(status)) {
        this.#direct = undefined; // a signed URL lives for a while only
        throw new TransientError(name, `the storage of the hub refused (status ${status})`);
      }
      checkHubStatus(this.#settings, name, response);
      if (status === 206) {
        await this.#takeRange(chunk, response, body);
        this.#direct = place === url ? undefined : place;
      } else await this.#takeWhole(response, body);
    });
  }

  async #takeRange(chunk: number, response: Response, body: AsyncIterable<Uint8Array>): Promise<void> {
    const { name, size } = this.#what;
    const from = chunk * this.#partial.chunkSize;
    const length = this.#sizeOf(chunk);
    const range = response.headers.get("content-range");
    // Pages of other origins may not see it; then the sum must do.
    if (range !== null && range !== `bytes ${from}-${from + length - 1}/${size}`) {
      const total = Number(/\/(\d+)$/.exec(range)?.[1]);
      if (total !== size && !Number.isNaN(total)) {
        throw new ChangedError(name, `expected a file of ${size} bytes, but the server has one of ${total}`);
      }
      throw new CheckpointError(
        name,
        `requested bytes ${from} to ${from + length - 1}, received "${range.slice(0, 80)}"`,
      );
    }
    if (isEncoded(response)) throw new CheckpointError(name, "the server compresses what it was asked for as it is");
    await this.#noteVersion(response);
    const bytes = await readExactly(name, body, length, (count) => this.#arrived(chunk, count));
    await this.#store(chunk, bytes);
  }

  /** A server without ranges sends all; one that has ranges sends all when the file is no longer what it was. */
  async #takeWhole(response: Response, body: AsyncIterable<Uint8Array>): Promise<void> {
    const { name, size, sum } = this.#what;
    if (this.#partial.version !== undefined) {
      await this.#partial.setVersion(undefined);
      if (!sum) throw new ChangedError(name, "the file changed on the server while it was downloaded");
      // Other machines of a storage may have other versions of one content; the sum will tell.
      throw new TransientError(name, "the server has another version of the file than before");
    }
    // Of what is here nothing tells that it belongs to this.
    if (!sum && this.isBegun) throw new ChangedError(name, "the server sends the whole file in place of a part");
    const length = response.headers.get("content-length");
    if (length !== null && !isEncoded(response) && Number(length) !== size) {
      throw new ChangedError(name, `expected a file of ${size} bytes, but the server has one of ${length}`);
    }
    let chunk = 0;
    let bytes = new Uint8Array(this.#sizeOf(0));
    let filled = 0;
    const complete = async () => {
      await this.#store(chunk, bytes);
      chunk++;
      filled = 0;
      bytes = new Uint8Array(chunk < this.#chunks ? this.#sizeOf(chunk) : 0);
    };
    for await (const piece of body) {
      for (let at = 0; at < piece.length; ) {
        if (chunk >= this.#chunks) throw new ChangedError(name, `expected ${size} bytes, found more`);
        const part = piece.subarray(at, at + bytes.length - filled);
        bytes.set(part, filled);
        filled += part.length;
        at += part.length;
        this.#arrived(chunk, filled);
        if (filled === bytes.length) await complete();
      }
    }
    if (chunk < this.#chunks) {
      const received = chunk * this.#partial.chunkSize + filled;
      throw new TransientError(name, `the connection was cut: expected ${size} bytes, received ${received}`);
    }
  }

  async #noteVersion(response: Response): Promise<void> {
    const version = response.headers.get("etag");
    // A weak one does not say that bytes are the same, and is not allowed with ranges.
    if (version === null || version.startsWith("W/") || this.#partial.version !== undefined) return;
    await this.#partial.setVersion(version);
  }

  async #store(chunk: number, bytes: Uint8Array): Promise<void> {
    this.#ending.signal.throwIfAborted();
    if (!this.#partial.has(chunk)) {
      await this.#partial.write(chunk, bytes);
      this.#done += bytes.length;
    }
    this.#arriving.delete(chunk);
    this.#stored?.();
  }

  #stored: (() => void) | undefined;

  /** Sums chunks in their order, waiting for each. */
  async #sum({ algorithm }: Sum): Promise<string> {
    const hasher = await createHasher(algorithm, this.#what.size);
    const { signal } = this.#ending;
    for (; this.#summed < this.#chunks; this.#summed++) {
      while (!this.#partial.has(this.#summed)) {
        signal.throwIfAborted();
        await new Promise<void>((resolve) => {
          this.#stored = resolve;
        });
      }
      signal.throwIfAborted();
      hasher.update(await this.#partial.read(this.#summed));
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
