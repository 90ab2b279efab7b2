// Files on web servers, for pages and for Node: read by ranges where the server serves them, downloaded whole where it does not.

import { type ByteSource, bytesSource } from "../byte-source.js";
import { blocksSource, download, type OnDownload } from "./download.js";
import { checkStatus, exchange, TransientError, withRetries } from "./exchange.js";
import { pieceSize, rangeAnswerOf, rangeHeader, rangesSource, readExactly } from "./ranges.js";
import { fileUrlIn, isFolderUrl, resolveUrl } from "./urls.js";

/** Most bytes of a file that is no checkpoint, such as a tokenizer. */
const maxSmallFile = 2 ** 26;

/**
 * Opens a file on a web server for reading by range.
 *
 * @param onDownload told of bytes that have come
 * @param patience milliseconds without a byte after which the server is given up
 * @throws CheckpointError when it cannot be fetched
 */
export function httpSource(name: string, onDownload?: OnDownload, patience?: number): Promise<ByteSource> {
  const url = resolveUrl(name);
  const options = { onDownload, patience };
  return withRetries(async () => {
    const source = await exchange(url, { headers: rangeHeader(0, pieceSize), patience }, async (response, body) => {
      // An empty file has no first byte.
      if (response.status === 416) return bytesSource(url, new Uint8Array());
      checkStatus(url, response);
      if (response.status !== 206) return blocksSource(url, await download(url, response, body, options));
      const answer = rangeAnswerOf(url, response, 0, pieceSize);
      if (!answer) return undefined;
      const size = Math.min(pieceSize, answer.total);
      const start = await readExactly(url, body, size, (done) => onDownload?.(done, answer.total));
      return rangesSource(url, answer, start, options);
    });
    if (source) return source;
    // A part of the file of which nothing more is known: of a compressed form, or from a server of another origin that does not
    // let pages see which part it is.
    return exchange(url, { patience }, async (response, body) => {
      checkStatus(url, response);
      return blocksSource(url, await download(url, response, body, options));
    });
  });
}

/**
 * Bytes of a file on a web server; undefined where there is none, or where it may not be read.
 *
 * @throws CheckpointError when the server does not answer
 */
export async function httpFileSize(name: string): Promise<number | undefined> {
  const url = resolveUrl(name);
  if (url === "") return undefined;
  const size = (method: "HEAD" | "GET") =>
    exchange(url, { method }, async (response, body) => {
      // A server of single-page applications answers any name with its page.
      const isPage = response.headers.get("content-type")?.startsWith("text/html");
      if (!response.ok || isPage) return { status: response.status, size: undefined };
      const length = response.headers.get("content-length");
      if (length !== null) return { status: response.status, size: Number(length) };
      if (method === "HEAD") return { status: 405, size: undefined };
      return { status: response.status, size: (await download(url, response, body, { limit: maxSmallFile })).size };
    }).catch((error) => {
      // A file of another origin that is not there is often answered without the headers that let a page see so.
      if (error instanceof TransientError) return { status: 0, size: undefined };
      throw error;
    });
  const found = await size("HEAD");
  // Not every server knows HEAD, and a URL may be signed for GET alone.
  if (found.size === undefined && [400, 403, 405, 501].includes(found.status)) return (await size("GET")).size;
  return found.size;
}

/** Which of the names that are tried a folder has, whose URL ends in a slash; undefined for what is none. */
export async function httpFolder(name: string, tried: readonly string[] = []): Promise<string[] | undefined> {
  if (!isFolderUrl(name)) return undefined;
  const sizes = await Promise.all(tried.map((file) => httpFileSize(fileUrlIn(name, file))));
  return tried.filter((_, i) => sizes[i] !== undefined);
}

/**
 * All bytes of a small file on a web server.
 *
 * @throws CheckpointError when it cannot be fetched
 */
export function httpBytes(name: string): Promise<Uint8Array<ArrayBuffer>> {
  const url = resolveUrl(name);
  return withRetries(() =>
    exchange(url, {}, async (response, body) => {
      checkStatus(url, response);
      return (await download(url, response, body, { limit: maxSmallFile })).toBytes();
    }),
  );
}
