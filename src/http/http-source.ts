// Files on web servers, for pages and for Node: they are read by ranges where the server supports that, and
// downloaded whole elsewhere.

import { type ByteSource, bytesSource } from "../byte-source.js";
import { blocksSource, download, type OnDownload } from "./download.js";
import { checkStatus, exchange, TransientError, withRetries } from "./exchange.js";
import { pieceSize, rangeHeader, rangeResponseOf, rangesSource, readExactly } from "./ranges.js";
import { fileUrlIn, isFolderUrl, resolveUrl } from "./urls.js";

/** The most bytes of a file that is not a checkpoint, such as a tokenizer. */
const maxSmallFile = 2 ** 26;

/**
 * Opens a file on a web server for reading by range.
 *
 * @param onDownload called as bytes are received
 * @param timeout the time without any bytes after which a request is given up, in milliseconds
 * @throws CheckpointError when the file cannot be fetched
 */
export function httpSource(name: string, onDownload?: OnDownload, timeout?: number): Promise<ByteSource> {
  const url = resolveUrl(name);
  const options = { onDownload, timeout };
  return withRetries(async () => {
    const source = await exchange(url, { headers: rangeHeader(0, pieceSize), timeout }, async (response, body) => {
      // An empty file has no first byte.
      if (response.status === 416) return bytesSource(url, new Uint8Array());
      checkStatus(url, response);
      if (response.status !== 206) return blocksSource(url, await download(url, response, body, options));
      const answer = rangeResponseOf(url, response, 0, pieceSize);
      if (!answer) return undefined;
      const size = Math.min(pieceSize, answer.total);
      const start = await readExactly(url, body, size, (done) => onDownload?.(done, answer.total));
      return rangesSource(url, answer, start, options);
    });
    if (source) return source;
    // The response was a part of the file whose position is unknown: a part of a compressed form, or from a server of
    // another origin that does not let pages see which part it is.
    return exchange(url, { timeout }, async (response, body) => {
      checkStatus(url, response);
      return blocksSource(url, await download(url, response, body, options));
    });
  });
}

/**
 * The size of a file on a web server, in bytes; undefined when there is no such file or it may not be read.
 *
 * @throws CheckpointError when the server does not respond; the signal's reason
 */
export async function httpFileSize(name: string, signal?: AbortSignal): Promise<number | undefined> {
  const url = resolveUrl(name);
  if (url === "") return undefined;
  const size = (method: "HEAD" | "GET") =>
    exchange(url, { method, ...(signal && { signal }) }, async (response, body) => {
      // A server of single-page applications responds to any name with its page.
      const isPage = response.headers.get("content-type")?.startsWith("text/html");
      if (!response.ok || isPage) return { status: response.status, size: undefined };
      const length = response.headers.get("content-length");
      if (length !== null) return { status: response.status, size: Number(length) };
      if (method === "HEAD") return { status: 405, size: undefined };
      return { status: response.status, size: (await download(url, response, body, { limit: maxSmallFile })).size };
    }).catch((error) => {
      signal?.throwIfAborted();
      // For a missing file, a server of another origin often omits the headers that would let a page see the status.
      if (error instanceof TransientError) return { status: 0, size: undefined };
      throw error;
    });
  // Browsers answer GET alone for what they hold themselves.
  if (/^(blob|data):/i.test(url)) return (await size("GET")).size;
  const found = await size("HEAD");
  // Not every server supports HEAD, and a URL may be signed for GET only.
  if (found.size === undefined && [400, 403, 405, 501].includes(found.status)) return (await size("GET")).size;
  return found.size;
}

/**
 * The names among those tried that exist in a folder; undefined when the URL does not end in a slash and so is not a
 * folder's.
 */
export async function httpFolder(name: string, tried: readonly string[] = []): Promise<string[] | undefined> {
  if (!isFolderUrl(name)) return undefined;
  const sizes = await Promise.all(tried.map((file) => httpFileSize(fileUrlIn(name, file))));
  return tried.filter((_, i) => sizes[i] !== undefined);
}

/**
 * Fetches all bytes of a small file on a web server.
 *
 * @throws CheckpointError when the file cannot be fetched; the signal's reason
 */
export function httpBytes(name: string, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
  const url = resolveUrl(name);
  return withRetries(() =>
    exchange(url, { ...(signal && { signal }) }, async (response, body) => {
      checkStatus(url, response);
      return (await download(url, response, body, { limit: maxSmallFile })).toBytes();
    }),
  ).catch((error) => {
    signal?.throwIfAborted();
    throw error;
  });
}
