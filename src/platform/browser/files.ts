// Files of a page: what it can fetch by URL, relative to the page. src/platform/node/files.ts has the same functions for Node.

import { type ByteSource, bytesSource, checkRange } from "../../checkpoints/byte-source.js";
import { CheckpointError } from "../../errors.js";

/** The model in the package; by its file, so that bundlers find it. */
export const embeddedModel: string = new URL("../../../embedded/model.safetensors", import.meta.url).href;

/** A folder's URL ends in a slash. */
export function join(folder: string, name: string): string {
  return folder.endsWith("/") ? folder + name : `${folder}/${name}`;
}

export function dirname(url: string): string {
  return url.slice(0, url.lastIndexOf("/") + 1) || "./";
}

export function basename(url: string): string {
  return url.slice(url.lastIndexOf("/") + 1);
}

/** Which of the names that are tried a folder has; undefined for what is none. A page cannot list one. */
export async function listFolder(url: string, tried: readonly string[] = []): Promise<string[] | undefined> {
  if (!url.endsWith("/")) return undefined;
  const sizes = await Promise.all(tried.map((name) => fileSize(join(url, name))));
  return tried.filter((_, i) => sizes[i] !== undefined);
}

/** Bytes of a file; undefined where there is none. */
export async function fileSize(url: string): Promise<number | undefined> {
  const response = await fetch(url, { method: "HEAD" }).catch(() => undefined);
  // A server of single-page applications answers any name with its page.
  if (!response?.ok || response.headers.get("content-type")?.startsWith("text/html")) return undefined;
  const length = response.headers.get("content-length");
  return length === null ? (await (await fetch(url)).arrayBuffer()).byteLength : Number(length);
}

/** A whole file as text. */
export async function readText(url: string): Promise<string> {
  return (await fetch(url)).text();
}

/** Smaller files are fetched whole: loading a model reads hundreds of small ranges. */
const smallFile = 8 * 2 ** 20;

/**
 * Opens a URL for reading by range. A small file is fetched whole, once; so is one whose server does not serve ranges.
 *
 * @throws CheckpointError when it cannot be fetched
 */
export async function fileSource(url: string): Promise<ByteSource> {
  const first = await request(url, { headers: { range: "bytes=0-0" } });
  const total = /\/(\d+)$/.exec(first.headers.get("content-range") ?? "")?.[1];
  if (first.status !== 206 || total === undefined || Number(total) <= smallFile) {
    const response = first.status === 206 ? await request(url) : first;
    return bytesSource(url, new Uint8Array(await response.arrayBuffer()));
  }
  await first.body?.cancel();
  const source: ByteSource = {
    name: url,
    size: Number(total),
    async readInto(offset, target) {
      checkRange(source, offset, target.byteLength);
      if (target.byteLength === 0) return;
      const range = `bytes=${offset}-${offset + target.byteLength - 1}`;
      // Past the cache, which would have to put together many ranges of one file.
      const init: RequestInit = { headers: { range }, cache: "no-store" };
      const bytes = new Uint8Array(await (await request(url, init)).arrayBuffer());
      if (bytes.byteLength !== target.byteLength) {
        throw new CheckpointError(url, `expected ${target.byteLength} bytes for ${range}, found ${bytes.byteLength}`);
      }
      target.set(bytes);
    },
    async close() {},
  };
  return source;
}

async function request(url: string, init: RequestInit = {}): Promise<Response> {
  const response = await fetch(url, init).catch((cause) => {
    throw new CheckpointError(url, `cannot be fetched (${(cause as Error).message})`, { cause });
  });
  if (!response.ok)
    throw new CheckpointError(url, response.status === 404 ? "no such file" : `cannot be fetched (${response.status})`);
  return response;
}
