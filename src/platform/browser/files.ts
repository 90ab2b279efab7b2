// Files of a page: what it can fetch by URL, relative to the page, and what it keeps (kept-files.ts). src/platform/node/files.ts has the same
// functions for Node.

import { type ByteSource, blobSource } from "../../byte-source.js";
import { CheckpointError, RwkvError } from "../../errors.js";
import type { OnDownload } from "../../http/download.js";
import { httpBytes, httpFileSize, httpFolder, httpSource } from "../../http/http-source.js";
import { lastNameOf } from "../../http/urls.js";
import { decodeText } from "../../text-files.js";
import { isKeptPath, keptFile, keptNames } from "./kept-files.js";
import { located } from "./moved-files.js";

export { fileUrlIn as join, folderUrl as dirname } from "../../http/urls.js";

/** The model in the package; by its file, so that bundlers find it. */
export const embeddedModel: string = located(
  "../../../embedded/model.safetensors",
  new URL("../../../embedded/model.safetensors", import.meta.url),
).href;

/** Its tokenizer, which bundlers rename, too. */
export const embeddedTokenizer: string = located(
  "../../../embedded/tokenizer.json",
  new URL("../../../embedded/tokenizer.json", import.meta.url),
).href;

/** The World vocabulary in the package. */
export const packagedVocabulary: string = located(
  "../../../embedded/world-vocabulary.bin",
  new URL("../../../embedded/world-vocabulary.bin", import.meta.url),
).href;

/** A URL as text. */
export function resolvePath(url: string | URL): string {
  return String(url);
}

/** The last name of a URL or path. */
export function basename(url: string): string {
  return isKeptPath(url) ? decodeURIComponent(lastNameOf(url)) : lastNameOf(url);
}

/** The names in a folder; of one on a web server those among `tried` that are there. undefined for the URL of a file. */
export function listFolder(url: string, tried?: readonly string[]): Promise<string[] | undefined> {
  return isKeptPath(url) ? keptNames(url) : httpFolder(url, tried);
}

/** Bytes of a file; undefined where there is none. */
export async function fileSize(url: string): Promise<number | undefined> {
  return isKeptPath(url) ? (await keptFile(url))?.size : httpFileSize(url);
}

/** Opens a file for reading by range. @throws CheckpointError when it cannot be opened */
export async function fileSource(url: string, onDownload?: OnDownload): Promise<ByteSource> {
  if (!isKeptPath(url)) return httpSource(url, onDownload);
  const file = await keptFile(url);
  if (!file) throw new CheckpointError(basename(url), "was removed from this site's storage");
  return blobSource(file);
}

/** A whole file. @throws RwkvError when it cannot be fetched */
export async function readBytes(url: string): Promise<Uint8Array> {
  if (!isKeptPath(url)) return httpBytes(url);
  const file = await keptFile(url);
  if (!file) throw new RwkvError(`${basename(url)}: was removed from this site's storage`);
  return new Uint8Array(await file.arrayBuffer());
}

/**
 * A whole file as text, without a byte order mark.
 *
 * @throws RwkvError when it cannot be fetched or is not UTF-8
 */
export async function readText(url: string): Promise<string> {
  return decodeText(await readBytes(url), (reason) => new RwkvError(`${url}: ${reason}`));
}
