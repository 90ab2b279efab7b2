// A model on a web server that is no hub: its file, and what is read beside it, as a page keeps them together.

import { CheckpointError } from "../errors.js";
import { httpBytes, httpFileSize } from "../http/http-source.js";
import { fileUrlIn, folderUrl, isFolderUrl, lastNameOf } from "../http/urls.js";
import type { ModelStore, StorableFile } from "../platform/platform.js";
import { storeBlob } from "./store-blob.js";

/** What is looked for beside a model: servers cannot be asked to list it. */
const tokenizers = ["tokenizer.json", "20B_tokenizer.json", "rwkv_vocab_v20230424.txt"];
const config = "config.json";
/** A server names no commits. */
const commit = "url";

/** Whether a URL is that of one file of weights, rather than of a folder or of an index of shards. */
export function isSingleUrl(url: string): boolean {
  return !isFolderUrl(url) && !lastNameOf(url).endsWith(".json");
}

/** The path of the model at a URL, if it was stored. */
export function storedUrl(store: ModelStore, url: string): Promise<string | undefined> {
  return store.find({ repository: url, revision: commit, file: nameAt(url) });
}

/** What is to be stored of the model at a URL. @throws CheckpointError where there is none */
export async function fileAtUrl(url: string, signal?: AbortSignal): Promise<StorableFile> {
  const size = await httpFileSize(url, signal);
  if (size === undefined || !Number.isSafeInteger(size))
    throw new CheckpointError(url, "no such file, or its server does not tell its size");
  return storable(url, nameAt(url), size);
}

/**
 * Stores what lies beside the model at a URL. These files are small, and often sent compressed, so they are fetched whole.
 *
 * @param onWarning called with a line about each that cannot be fetched
 * @throws RwkvError when there is no room for them; the signal's reason
 */
export async function storeBeside(
  store: ModelStore,
  url: string,
  onWarning: (message: string) => void,
  signal?: AbortSignal,
): Promise<void> {
  const folder = folderUrl(url);
  if (folder === "") return;
  const tried = /^(pytorch_)?model\./.test(nameAt(url)) ? [...tokenizers, config] : tokenizers;
  const fetched = async (name: string) => {
    const at = fileUrlIn(folder, name);
    try {
      return (await httpFileSize(at, signal)) === undefined ? undefined : await httpBytes(at, signal);
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof CheckpointError)) throw error;
      onWarning(`${error.message}; the model is kept without it`);
      return undefined;
    }
  };
  const found = await Promise.all(tried.map(async (name) => [name, await fetched(name)] as const));
  for (const [name, bytes] of found) {
    if (bytes) await storeBlob(store, storable(url, name, bytes.length), new Blob([bytes]), { signal });
  }
}

function storable(repository: string, file: string, size: number): StorableFile {
  return { repository, revision: commit, commit, file, size, etag: `${size} bytes` };
}

/** The name by which the file at a URL is kept. */
function nameAt(url: string): string {
  const name = lastNameOf(url);
  try {
    return decodeURIComponent(name).replaceAll(/[/\\]/g, "_") || "model";
  } catch {
    return name; // with a percent sign that begins no escape
  }
}
