// Models from files of the user, which a page keeps so that they need not be chosen again. Their names begin with local:.

import { openModelStore } from "#platform/model-store";
import { CheckpointError, OptionError, RwkvError } from "../errors.js";
import { checkFunction, checkSignal } from "../generation/generation-options.js";
import type { ModelStore, StoredModel } from "../platform/platform.js";
import { modelFiles } from "./model-files.js";
import { isSafePath } from "./model-name.js";
import { storeBlob } from "./store-blob.js";

/** Options of `storeModel`. */
export interface StoreOptions {
  /** Called as bytes are written, with those that are and those of all files. */
  onProgress?: (done: number, total: number) => void;
  /** Ends it; nothing of these files stays. */
  signal?: AbortSignal;
}

const prefix = "local:";
/** Stands for what was stored last. */
const revision = "local";

export function isLocalName(name: string): boolean {
  return name.startsWith(prefix);
}

/**
 * Keeps files that the user has chosen in the private file system of the page's origin: a checkpoint, or the shards of one with their
 * index, and what is read beside it (config.json, a tokenizer). A model that was stored under the same name is
 * replaced when all of it is there.
 *
 * @returns its name for `load`, `downloadModel` and `removeStoredModel`: "local:" and the name of its file
 * @throws CheckpointError where the files are not one model; RwkvError when there is no room for them, and in Node, which reads files where
 *   they are; OptionError; the signal's reason
 */
export async function storeModel(files: readonly File[], options: StoreOptions = {}): Promise<string> {
  const isFile = (file: unknown) => Object.prototype.toString.call(file) === "[object File]";
  if (!Array.isArray(files) || files.length === 0 || !files.every(isFile)) {
    throw new OptionError("files", files, "an array of files");
  }
  if (typeof options !== "object" || options === null) throw new OptionError("options", options, "an object");
  const { onProgress, signal } = options;
  checkFunction("onProgress", onProgress);
  checkSignal(signal);
  signal?.throwIfAborted();
  const store = await openModelStore();
  if (!store.alone) throw new RwkvError("storeModel is for pages: Node reads files where they are");
  const main = mainFile(files);
  const name = `${prefix}${main}`;
  await removeUnfinished(store); // which takes room
  // The file that makes it a model comes last: a tab may be closed at any moment.
  const ordered = [...files.filter((file) => file.name !== main), ...files.filter((file) => file.name === main)];
  const total = files.reduce((sum, file) => sum + file.size, 0);
  const work = async () => {
    const commit = crypto.randomUUID();
    let before = 0;
    try {
      for (const file of ordered) {
        const what = { repository: name, revision, commit, file: file.name, size: file.size, etag: commit };
        await storeBlob(store, what, file, { signal, onProgress: (done) => onProgress?.(before + done, total) });
        before += file.size;
      }
    } catch (error) {
      await store.remove({ repository: name, commit });
      throw error;
    }
    await removeOthers(store, name);
    return name;
  };
  return store.alone(name, total, work, signal);
}

/**
 * Removes what was stored of files of the user without becoming a model, since their tab was closed before the last was there, and
 * models that another took the place of. None of it can be gone on with: only the user knows where the files are.
 */
export async function removeUnfinished(store: ModelStore): Promise<void> {
  const names = new Set((await store.list()).map(({ repository }) => repository).filter(isLocalName));
  for (const name of names) await store.ifAlone?.(name, () => removeOthers(store, name));
}

/** Removes all that is stored of a name but for the model that it stands for. */
async function removeOthers(store: ModelStore, name: string): Promise<void> {
  const all = (await store.list()).filter(({ repository }) => repository === name);
  const isModel = ({ file, complete, revisions }: StoredModel) =>
    file === fileOf(name) && complete && revisions.includes(revision);
  const current = all.find(isModel)?.commit;
  const others = new Set(all.map(({ commit }) => commit).filter((commit) => commit !== current));
  for (const commit of others) await store.remove({ repository: name, commit });
}

/** The name of the file that a stored model is opened by. */
function fileOf(name: string): string {
  return name.slice(prefix.length);
}

/** The path of a model that the user's files were stored as. @throws CheckpointError where there is none, or not all of it */
export async function storedLocally(name: string): Promise<string> {
  const store = await openModelStore();
  // The file to open came last, so that all are there where it is.
  const path = await store.find({ repository: name, revision, file: fileOf(name) });
  if (path === undefined) throw new CheckpointError(name, `not in ${store.location}`);
  return path;
}

/** The file of a model that is to be opened. @throws CheckpointError */
function mainFile(files: readonly { readonly name: string; readonly size: number }[]): string {
  const wrong = files.find(({ name }) => name.includes("/") || !isSafePath(name));
  if (wrong) throw new CheckpointError(wrong.name, "this name of a file cannot be kept");
  const asked = { text: "the files", repository: "", revision: "", mayBePath: false };
  return modelFiles(
    asked,
    files.map(({ name: file, size }) => ({ file, size })),
  ).at(-1)?.file as string;
}
