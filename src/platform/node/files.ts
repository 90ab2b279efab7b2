// Files, as Node has them. src/platform/browser/files.ts has the same functions for pages.

import type { Stats } from "node:fs";
import { type FileHandle, open, readdir, readFile, stat } from "node:fs/promises";
import * as paths from "node:path";
import { fileURLToPath } from "node:url";
import { type ByteSource, checkRange } from "../../byte-source.js";
import { CheckpointError, OptionError, RwkvError } from "../../errors.js";
import type { OnDownload } from "../../http/download.js";
import { fileUrlIn, folderUrl, isHttpUrl, lastNameOf } from "../../http/urls.js";
import { decodeText } from "../../text-files.js";
import { readFully } from "./read-fully.js";

/** The model in the package. */
export const embeddedModel: string = fileURLToPath(new URL("../../../embedded/", import.meta.url));

/** Its tokenizer. */
export const embeddedTokenizer: string = paths.join(embeddedModel, "tokenizer.json");

/** The World vocabulary in the package. */
export const packagedVocabulary: string = paths.join(embeddedModel, "world-vocabulary.bin");

/** Reads what is named by a URL, as a page does; seldom, so it is loaded then. */
const web = () => import("../../http/http-source.js");

export function join(folder: string, name: string): string {
  return isHttpUrl(folder) ? fileUrlIn(folder, name) : paths.join(folder, name);
}

export function dirname(path: string): string {
  return isHttpUrl(path) ? folderUrl(path) : paths.dirname(path);
}

export function basename(path: string): string {
  return isHttpUrl(path) ? lastNameOf(path) : paths.basename(path);
}

/**
 * The path that a path or a file: URL names; what is on the web keeps its URL.
 *
 * @throws OptionError for a URL of another kind
 */
export function resolvePath(path: string | URL): string {
  const scheme = /^([a-z][a-z0-9+.-]+):\/\//i.exec(String(path))?.[1]?.toLowerCase();
  if (typeof path === "string" && scheme === undefined) return path;
  if (scheme === "file") return fileURLToPath(path);
  if (isHttpUrl(String(path))) return String(path);
  throw new OptionError("input", String(path), "a path, or a URL that begins with file:, http: or https:");
}

/** The names in a folder; undefined when the path is not a folder. Pages cannot list folders and try the given names. */
export async function listFolder(path: string, tried: readonly string[] = []): Promise<string[] | undefined> {
  if (isHttpUrl(path)) return (await web()).httpFolder(path, tried);
  const status = await stat(path).catch(() => undefined);
  return status?.isDirectory() ? readdir(path) : undefined;
}

/** The size of a file in bytes; undefined when there is no such file. */
export async function fileSize(path: string): Promise<number | undefined> {
  if (isHttpUrl(path)) return (await web()).httpFileSize(path);
  const status = await stat(path).catch(() => undefined);
  return status?.isFile() ? status.size : undefined;
}

/** A whole file. @throws RwkvError when it cannot be read */
export async function readBytes(path: string): Promise<Uint8Array> {
  if (isHttpUrl(path)) return (await web()).httpBytes(path);
  return readFile(path).catch((cause: NodeJS.ErrnoException) => {
    throw new RwkvError(`${path}: cannot be read (${cause.code})`, { cause });
  });
}

/**
 * A whole file as text, without a byte order mark.
 *
 * @throws RwkvError when it cannot be read or is not UTF-8
 */
export async function readText(path: string): Promise<string> {
  return decodeText(await readBytes(path), (reason) => new RwkvError(`${path}: ${reason}`));
}

/**
 * Opens a file, or a URL on a web server, for reading by range.
 *
 * @param onDownload told of bytes that have come from a web server
 * @throws CheckpointError when the file does not exist, is not a regular file, or cannot be read
 */
export async function fileSource(path: string, onDownload?: OnDownload): Promise<ByteSource> {
  if (isHttpUrl(path)) return (await web()).httpSource(path, onDownload);
  const handle: FileHandle = await open(path, "r").catch((cause: NodeJS.ErrnoException) => {
    throw new CheckpointError(path, openFailure(path, cause), { cause });
  });
  let status: Stats;
  try {
    status = await handle.stat();
    if (!status.isFile()) throw new CheckpointError(path, "expected a regular file");
  } catch (error) {
    await handle.close();
    throw error;
  }
  const source: ByteSource = {
    name: path,
    size: status.size,
    get descriptor() {
      return handle.fd < 0 ? undefined : handle.fd; // it was closed
    },
    async readInto(offset, target) {
      checkRange(source, offset, target.byteLength);
      await readFully(handle, path, offset, target);
    },
    close: () => handle.close(),
  };
  return source;
}

function openFailure(path: string, cause: NodeJS.ErrnoException): string {
  if (cause.code === "ENOENT") {
    return path.startsWith("~/")
      ? "no such file (~ was not expanded by the shell; write the whole path)"
      : "no such file";
  }
  if (cause.code === "EACCES") return "permission denied";
  return `cannot be opened (${cause.code ?? cause.message})`;
}
