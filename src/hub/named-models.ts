// Models by name: what a name stands for, and downloading it once into the store of this machine or page.

import { fileSize, listFolder } from "#platform/files";
import { hubSettings, openModelStore } from "#platform/model-store";
import { CheckpointError, OptionError } from "../errors.js";
import { checkFunction, checkSignal } from "../generation/generation-options.js";
import { TransientError } from "../http/exchange.js";
import { isHttpUrl, resolveUrl } from "../http/urls.js";
import type { ModelStore, StorableFile, StoredModel } from "../platform/platform.js";
import { type ComingFile, comingFile } from "./coming-file.js";
import type { HubSettings } from "./hub-requests.js";
import { knownModels } from "./known-models.js";
import { isLocalName, removeUnfinished, storedLocally } from "./local-models.js";
import { fileAtUrl, isSingleUrl, storeBeside, storedUrl } from "./model-at-url.js";
import { isAllWeights, isWholeModel, modelFiles } from "./model-files.js";
import { type HubName, mayBeName, nameOf, parseModelName } from "./model-name.js";
import { fileUrl, type HubFile, hubFile, hubFiles, isCommit, sumOf } from "./repository.js";

/** Options of naming a model. */
export interface NamedModelOptions {
  /** The hub's URL. By default that of the variable HF_ENDPOINT, or https://huggingface.co. */
  endpoint?: string;
  /**
   * Whether what is downloaded is kept, and taken from there the next time: in Node in the cache of Python's huggingface_hub, in a page in the
   * origin's private file system. By default true in Node and false in pages.
   */
  cache?: boolean;
  /** Ends the download, which goes on from there the next time. */
  signal?: AbortSignal;
}

/** Options of `downloadModel`. */
export interface DownloadOptions extends Omit<NamedModelOptions, "cache"> {
  /** Called as bytes come, with those that are here and those of all files in all; once with two equal numbers where nothing had to come. */
  onProgress?: (done: number, total: number) => void;
  /** Called with a line that the user should see, such as that another process is downloading. By default console.warn. */
  onWarning?: (message: string) => void;
}

/** What callers inside the package tell. */
interface Context extends NamedModelOptions {
  readonly onFile?: ((file: string, done: number, total: number) => void) | undefined;
  readonly onWarning?: ((message: string) => void) | undefined;
}

async function settingsOf({ endpoint }: NamedModelOptions): Promise<HubSettings> {
  const settings = await hubSettings();
  if (endpoint === undefined) return settings;
  if (typeof endpoint !== "string" || !URL.canParse(endpoint) || !isHttpUrl(endpoint)) {
    throw new OptionError("endpoint", endpoint, "the URL of a hub");
  }
  const { origin } = new URL(endpoint);
  const { token, ...others } = settings;
  // The token is for the hub that the user's variables name, not for one that a program does.
  const own = origin === new URL(settings.endpoint).origin && token !== undefined;
  return { ...others, ...(own && { token }), endpoint: endpoint.replace(/\/+$/, "") };
}

/**
 * Downloads a model, if it is not here already.
 *
 * @param name such as "rwkv7-g1-0.4b", "hf:owner/repo/file", "hf:owner/repo:Q4_K_M", or in a page also the URL of a file and what
 *   `storeModel` has returned
 * @returns the path of its file, which `load` and `openCheckpoint` take, in pages too
 * @throws CheckpointError when it cannot be downloaded or is not what it should be; OptionError for what is no name; RwkvError when it cannot be
 *   stored; the signal's reason
 */
export async function downloadModel(name: string, options: DownloadOptions = {}): Promise<string> {
  if (typeof name !== "string") throw new OptionError("model", name, "a name");
  if (typeof options !== "object" || options === null) throw new OptionError("options", options, "an object");
  const { onProgress, onWarning, signal, endpoint } = options;
  checkFunction("onProgress", onProgress);
  checkFunction("onWarning", onWarning);
  checkSignal(signal);
  const files = new Map<string, readonly [done: number, total: number]>();
  const onFile = (file: string, done: number, total: number) => {
    files.set(file, [done, total]);
    const sum = (i: 0 | 1) => [...files.values()].reduce((all, pair) => all + pair[i], 0);
    onProgress?.(sum(0), sum(1));
  };
  const context = {
    onFile,
    onWarning,
    cache: true,
    ...(signal && { signal }),
    ...(endpoint !== undefined && { endpoint }),
  };
  const found = await modelByName(name, context);
  if (found !== undefined && found !== name) {
    if (files.size === 0) {
      // It was here, or another caller's download brought it.
      const size = (await fileSize(found)) ?? 0;
      onProgress?.(size, size);
    }
    return found;
  }
  throw new OptionError("model", name, "the name of a model on the hub, such as rwkv7-g1-0.4b or hf:owner/repo/file");
}

/**
 * The file, path or URL that a name stands for, downloaded where it is to be kept.
 *
 * @returns undefined for a path or URL that stands for itself
 * @throws CheckpointError, OptionError, RwkvError; the signal's reason
 */
export async function modelByName(text: string, context: Context): Promise<string | undefined> {
  const found = await comingModel(text, context);
  return typeof found === "object" ? pathOf(found) : found;
}

async function pathOf({ whole, source }: ComingFile): Promise<string> {
  try {
    return await whole;
  } finally {
    await source.close();
  }
}

/** The same, but a model that is one file is given as soon as its download has begun. */
export async function comingModel(text: string, context: Context): Promise<string | ComingFile | undefined> {
  const { cache, signal } = context;
  if (cache !== undefined && typeof cache !== "boolean") throw new OptionError("cache", cache, "true or false");
  signal?.throwIfAborted();
  if (!mayBeName(text) && cache !== true) return undefined;
  if (isLocalName(text)) return storedLocally(text);
  // What is there as it is spelled needs no hub, nor its settings.
  if (!/^(hf|https?):/i.test(text) && (await isPath(text))) return cache ? keptUrl(text, context) : undefined;
  const settings = await settingsOf(context);
  const name = parseModelName(text, settings.endpoint);
  if (!name) {
    if (/^rwkv[\w.-]*$/i.test(text) && !/\.[a-z]+$/i.test(text)) throw unknownName(text);
    return cache ? keptUrl(text, context) : undefined;
  }
  const keeps = cache ?? settings.seesRedirects;
  const failed = (error: unknown): never => {
    if (!name.mayBePath || !(error instanceof CheckpointError)) throw error;
    throw new CheckpointError(text, `there is no such path here, and as a name: ${error.message}`, { cause: error });
  };
  try {
    if (!keeps) return await urlOf(settings, name, signal);
    const found = await stored(settings, await openModelStore(), name, context);
    if (typeof found !== "object") return found;
    const whole = found.whole.catch(failed);
    whole.catch(() => {}); // it may end before anybody waits for it
    return { ...found, whole };
  } catch (error) {
    return failed(error);
  }
}

async function isPath(text: string): Promise<boolean> {
  return (await fileSize(text)) !== undefined || (await listFolder(text)) !== undefined;
}

function unknownName(text: string): CheckpointError {
  const names = knownModels.map(({ name }) => name).join(", ");
  return new CheckpointError(text, `there is no such path here, and no model of this name; known are ${names}`);
}

/** The text that errors about a name begin with. */
function nameText({ repository, revision, file, text, mayBePath }: HubName): string {
  return mayBePath && file !== undefined ? nameOf(repository, revision, file) : text;
}

/** The URL from which a model is read. */
async function urlOf(settings: HubSettings, name: HubName, signal?: AbortSignal): Promise<string> {
  const { repository, revision, file } = name;
  if (file !== undefined && isWholeModel(file)) return fileUrl(settings, repository, revision, file);
  const files = modelFiles(name, await hubFiles(settings, nameText(name), name, { signal }));
  return fileUrl(settings, repository, revision, files.at(-1)?.file as string);
}

/** The file that a name stands for, from the store; while it comes, where it is all of the weights. */
async function stored(
  settings: HubSettings,
  store: ModelStore,
  name: HubName,
  context: Context,
): Promise<string | ComingFile> {
  const { onWarning = console.warn, signal } = context;
  const shown = nameText(name);
  const here = async () => {
    if (name.file !== undefined && isWholeModel(name.file)) return store.find({ ...name, file: name.file });
    return storedBefore(store, name);
  };
  const found = await here();
  if (settings.offline) {
    if (found !== undefined) return found;
    throw new CheckpointError(shown, `not in ${store.location}, and HF_HUB_OFFLINE forbids to download it`);
  }
  if (found !== undefined && isCommit(name.revision)) return found; // which does not change
  let files: HubFile[];
  try {
    files = await filesOf(settings, name, shown, { signal, once: found !== undefined });
  } catch (error) {
    if (found === undefined || !(error instanceof TransientError)) throw error;
    onWarning(`${error.message}; using what was downloaded before`);
    return found;
  }
  const all = files.map((file) => ({ ...file, revision: name.revision }));
  const main = all.pop() as (typeof all)[number];
  for (const file of all) await storedFile(settings, store, file, shown, context);
  const stores = isAllWeights(main.file) ? comingOrStored : storedFile;
  return stores(settings, store, main, shown, context);
}

/** The files of a model that are in the store, by the rules for those on the hub. */
async function storedBefore(store: ModelStore, name: HubName): Promise<string | undefined> {
  const { repository, revision } = name;
  const all = (await store.list()).filter(
    (one) =>
      one.complete && one.repository === repository && (one.commit === revision || one.revisions.includes(revision)),
  );
  try {
    const main = modelFiles(
      name,
      all.map(({ file, bytes }) => ({ file, size: bytes })),
    ).at(-1);
    return main && store.find({ repository, revision, file: main.file });
  } catch {
    return undefined; // nothing that can be meant
  }
}

async function filesOf(
  settings: HubSettings,
  name: HubName,
  shown: string,
  how: Parameters<typeof hubFile>[3],
): Promise<HubFile[]> {
  const { repository, revision, file, sha256 } = name;
  if (file === undefined || !isWholeModel(file)) return modelFiles(name, await hubFiles(settings, shown, name, how));
  const found = await hubFile(settings, shown, { repository, revision, file }, how);
  if (sha256 !== undefined && found.etag !== sha256) {
    throw new CheckpointError(
      shown,
      `expected the SHA-256 ${sha256}, as this model is known by, but the hub has ${found.etag}; hf:${repository}/${file} takes what it has`,
    );
  }
  return [found];
}

/** A file that is in the store, or is downloaded into it. */
async function storedFile(...given: Parameters<typeof comingOrStored>): Promise<string> {
  const found = await comingOrStored(...given);
  return typeof found === "object" ? pathOf(found) : found;
}

/** A file that is in the store, or whose download into it has begun. */
async function comingOrStored(
  settings: HubSettings,
  store: ModelStore,
  file: StorableFile,
  shown: string,
  { onFile, onWarning = console.warn, signal }: Context,
): Promise<string | ComingFile> {
  const { repository, commit, size } = file;
  const waiting = () => onWarning(`${shown}: another download of it is under way; waiting for it`);
  const begun = await store.begin(file, signal, waiting);
  if (typeof begun === "string") return begun;
  const download = {
    name: shown,
    url: isHttpUrl(repository) ? repository : fileUrl(settings, repository, commit, file.file),
    size,
    sum: sumOf(file),
    onProgress: (done: number, total: number) => onFile?.(file.file, done, total),
    signal,
  };
  return comingFile(settings, download, begun);
}

/**
 * The model at a URL, from the store of a page. What was stored once is not asked for again.
 *
 * @returns undefined in Node, which keeps files of the hub only, and for what is no single file of weights
 */
async function keptUrl(text: string, context: Context): Promise<string | ComingFile | undefined> {
  const store = await openModelStore();
  const url = resolveUrl(text);
  if (!store.isOfPage || !isSingleUrl(url)) return undefined;
  const found = await storedUrl(store, url);
  if (found !== undefined) return found;
  const settings = await settingsOf(context);
  const { onWarning = console.warn, signal } = context;
  const file = await fileAtUrl(url, signal);
  await storeBeside(store, url, onWarning, signal);
  const stores = isAllWeights(file.file) ? comingOrStored : storedFile;
  return stores(settings, store, file, url, context);
}

/**
 * Files of models that are here: in the hub's cache, or in a page's private file system. There what a closed tab left of files of the user
 * that were being stored is removed first.
 */
export async function storedModels(): Promise<StoredModel[]> {
  const store = await openModelStore();
  if (store.isOfPage) await removeUnfinished(store);
  return store.list();
}

/**
 * The URL from which a model on the hub is read, or the URL of one elsewhere as it is, so that `openCheckpoint` can look at its header
 * before anything is downloaded.
 *
 * @param name as for `downloadModel`
 * @throws CheckpointError where the hub has no such model or does not answer; OptionError for what is no name; the signal's reason
 */
export async function modelUrl(
  name: string,
  options: Pick<NamedModelOptions, "endpoint" | "signal"> = {},
): Promise<string> {
  if (typeof name !== "string") throw new OptionError("model", name, "a name");
  if (typeof options !== "object" || options === null) throw new OptionError("options", options, "an object");
  checkSignal(options.signal);
  const settings = await settingsOf(options);
  const parsed = parseModelName(name, settings.endpoint);
  if (parsed) return urlOf(settings, parsed, options.signal);
  if (isHttpUrl(name)) return resolveUrl(name);
  throw new OptionError("model", name, "the name of a model on the hub, such as rwkv7-g1-0.4b or hf:owner/repo/file");
}

/**
 * Removes a file that was downloaded, or all of a repository.
 *
 * @param name as for `downloadModel`; or hf:owner/repo. With a revision, as in hf:owner/repo@revision/file, what that one alone stands for is
 *   removed, else all of the name. Of a URL, and of what `storeModel` stored, all files are removed
 * @returns the bytes that were freed; undefined where nothing was there
 * @throws OptionError for what is no name; RwkvError in a page while it is being downloaded
 */
export async function removeStoredModel(name: string): Promise<number | undefined> {
  if (typeof name !== "string") throw new OptionError("model", name, "a name");
  const settings = await hubSettings();
  const parsed = parseModelName(name, settings.endpoint);
  const store = await openModelStore();
  if (!parsed) {
    if (isLocalName(name)) return store.remove({ repository: name });
    if (store.isOfPage || isHttpUrl(name)) return store.remove({ repository: resolveUrl(name) });
    throw new OptionError("model", name, "the name of a model, such as rwkv7-g1-0.4b or hf:owner/repo/file");
  }
  if (parsed.mayBePath && store.isOfPage) {
    const freed = await store.remove({ repository: resolveUrl(name) });
    if (freed !== undefined) return freed;
  }
  const { repository, file, quantization, isOfRevision } = parsed;
  const revision = isOfRevision ? parsed.revision : undefined;
  if (quantization === undefined) return store.remove({ repository, file, revision });
  const here = (await store.list()).filter(
    (one) =>
      one.repository === repository &&
      (revision === undefined || one.commit === revision || one.revisions.includes(revision)),
  );
  const files = modelFiles(
    parsed,
    here.map((one) => ({ file: one.file, size: one.bytes })),
  );
  let freed: number | undefined;
  for (const one of files) {
    freed = sumOfFreed(freed, await store.remove({ repository, file: one.file, revision }));
  }
  return freed;
}

function sumOfFreed(before: number | undefined, more: number | undefined): number | undefined {
  return before === undefined ? more : before + (more ?? 0);
}
