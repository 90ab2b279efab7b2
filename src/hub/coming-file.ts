// A file that is read while it is downloaded into a store. Its bytes are not checked yet when they are read, so what was made of them counts
// only when the download has ended, the sum was right, and nothing had to be downloaded anew.

import { type ByteSource, checkRange } from "../byte-source.js";
import type { PartialFile } from "../platform/platform.js";
import { type Download, FileDownload } from "./download-file.js";
import type { HubSettings } from "./hub-requests.js";

export interface ComingFile {
  /** The path that it will have, beside which other files are there already. */
  readonly path: string;
  /** Its bytes, for which reading waits. */
  readonly source: ByteSource;
  /** The path when the file is in its place. Rejects as `FileDownload.download`, or with what `stop` was given. */
  readonly whole: Promise<string>;
  /** Waits until what was read is known to be the file's. @throws where it is not, though `whole` may be fulfilled later */
  whenSound(): Promise<void>;
  /** Ends the download; what has come stays for the next time. */
  stop(reason: unknown): void;
}

/** Begins a download, and closes `partial` when it has ended. */
export async function comingFile(settings: HubSettings, what: Download, partial: PartialFile): Promise<ComingFile> {
  const stopping = new AbortController();
  const { signal } = what;
  const stop = () => stopping.abort(signal?.reason);
  const end = async () => {
    signal?.removeEventListener("abort", stop);
    await partial.close();
  };
  try {
    signal?.throwIfAborted();
    signal?.addEventListener("abort", stop);
    const download = await FileDownload.open(settings, { ...what, signal: stopping.signal }, partial);
    const checks: Promise<void>[] = [];
    const source = await arrivingSource(download, what.size, partial, checks);
    const whole = download.download().finally(end);
    whole.catch(() => {}); // it may end before anybody waits for it
    return {
      path: partial.path,
      source,
      whole,
      async whenSound() {
        await download.whenSound();
        await Promise.all(checks);
      },
      stop: (reason) => stopping.abort(reason),
    };
  } catch (error) {
    await end();
    throw error;
  }
}

async function arrivingSource(
  download: FileDownload,
  size: number,
  partial: PartialFile,
  checks: Promise<void>[],
): Promise<ByteSource> {
  const reader = await partial.openReader();
  const { chunkSize } = partial;
  const chunkAt = (offset: number) => Math.floor(offset / chunkSize);
  const source: ByteSource = {
    name: partial.path,
    size,
    get descriptor() {
      return reader.descriptor;
    },
    arrival: {
      get isWhole() {
        return download.isWhole;
      },
      whenWhole: () => download.whenWhole(),
      hurry(offset, length) {
        if (length > 0) download.hurry(chunkAt(offset), chunkAt(offset + length - 1) + 1);
      },
      later(check) {
        check.catch(() => {}); // it is waited for in the end
        checks.push(check);
      },
    },
    async readInto(offset, target) {
      checkRange(source, offset, target.byteLength);
      const end = offset + target.byteLength;
      for (let at = offset; at < end; ) {
        let chunk = chunkAt(at);
        await download.whenHere(chunk);
        // Together with those behind it that are here, too.
        while (++chunk * chunkSize < end && partial.has(chunk));
        const next = Math.min(end, chunk * chunkSize);
        await reader.readInto(at, target.subarray(at - offset, next - offset));
        at = next;
      }
    },
    async close() {
      // Checks read, too, and may have to wait for it longer than who reads the rest.
      const closing = Promise.allSettled(checks).then(() => reader.close());
      if (checks.length === 0) await closing;
    },
  };
  return source;
}
