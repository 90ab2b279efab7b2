// Files of a page: what it can fetch by URL, relative to the page. src/platform/node/files.ts has the same functions for Node.

import { RwkvError } from "../../errors.js";
import { httpBytes } from "../../http/http-source.js";
import { decodeText } from "../../text-files.js";
import { located } from "./moved-files.js";

export {
  httpFileSize as fileSize,
  httpFolder as listFolder,
  httpSource as fileSource,
} from "../../http/http-source.js";
export { fileUrlIn as join, folderUrl as dirname, lastNameOf as basename } from "../../http/urls.js";

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

/** A whole file. @throws RwkvError when it cannot be fetched */
export function readBytes(url: string): Promise<Uint8Array> {
  return httpBytes(url);
}

/**
 * A whole file as text, without a byte order mark.
 *
 * @throws RwkvError when it cannot be fetched or is not UTF-8
 */
export async function readText(url: string): Promise<string> {
  return decodeText(await readBytes(url), (reason) => new RwkvError(`${url}: ${reason}`));
}
