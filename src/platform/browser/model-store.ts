// The store of models of a page: writes files as kept-files.ts has them, in chunks, so that any tab goes on where another was closed.

import { RwkvError } from "../../errors.js";
import type { ModelStore, PartialFile, StorableFile, StoredModel, StoredName } from "../platform.js";
import {
  type About,
  aboutName,
  chunkFile,
  chunkSize,
  foldersIn,
  openRoot,
  pathOf,
  readAbout,
  wholeFile,
} from "./kept-files.js";

/** Pages have no variables and no token, and do not see redirects. */
export async function hubSettings(): Promise<{ endpoint: string; offline: boolean; seesRedirects: boolean }> {
  return { endpoint: "https://huggingface.co", offline: false, seesRedirects: false };
}

/** @throws RwkvError where pages may not keep files */
export async function openModelStore(): Promise<ModelStore> {
  return new PageStore(await openRoot());
}

class PageStore implements ModelStore {
  readonly location = "this site's storage in the browser";
  readonly isOfPage = true;
  readonly #root: FileSystemDirectoryHandle;

  constructor(root: FileSystemDirectoryHandle) {
    this.#root = root;
  }

  async find({ repository, revision, file }: StoredName): Promise<string | undefined> {
    for (const { folder, about } of await foldersIn(this.#root)) {
      if (!about.complete || about.repository !== repository || about.file !== file) continue;
      if (about.commit !== revision && !about.revisions.includes(revision)) continue;
      if (await wholeFile(folder, about)) return pathOf(about);
    }
    return undefined;
  }

  async begin(file: StorableFile, signal?: AbortSignal, onWait?: () => void): Promise<PartialFile | string> {
    const name = await folderName(file);
    const unlock = await lock(`rwkv-model-${name}`, signal, onWait);
    try {
      const folder = await this.#root.getDirectoryHandle(name, { create: true });
      const before = await readAbout(folder);
      const revisions = [...new Set([...(before?.revisions ?? []), file.revision])];
      const { repository, commit, size } = file;
      const about: About = { ...before, repository, file: file.file, revisions, commit, size, complete: false };
      if (before?.complete && before.size === size && (await wholeFile(folder, before))) {
        await writeAbout(folder, { ...about, complete: true });
        await this.#moveRevision(name, file);
        unlock();
        return pathOf(about);
      }
      await writeAbout(folder, about);
      const partial = await openPartial(folder, about, () => this.#moveRevision(name, file), unlock);
      let missing = size;
      for (let chunk = 0; chunk * chunkSize < size; chunk++) if (partial.has(chunk)) missing -= chunkSize;
      await checkSpace(file.file, missing);
      return partial;
    } catch (error) {
      unlock();
      throw error;
    }
  }

  async list(): Promise<StoredModel[]> {
    const all: StoredModel[] = [];
    for (const { folder, about } of await foldersIn(this.#root)) {
      let bytes = 0;
      for (let chunk = 0; chunk * chunkSize < about.size; chunk++) bytes += (await chunkFile(folder, chunk))?.size ?? 0;
      const { repository, file, revisions, commit, complete, size } = about;
      const path = complete && { path: pathOf(about) };
      all.push({ repository, file, revisions, commit, bytes, size, complete, ...path });
    }
    return all;
  }

  async remove({ repository, file }: { repository: string; file?: string }): Promise<number | undefined> {
    let freed: number | undefined;
    const bytesOf = new Map((await this.list()).map((model) => [`${model.repository}\n${model.file}`, model.bytes]));
    for (const { folder, about } of await foldersIn(this.#root)) {
      if (about.repository !== repository || (file !== undefined && about.file !== file)) continue;
      freed = (freed ?? 0) + (bytesOf.get(`${about.repository}\n${about.file}`) ?? 0);
      await this.#root.removeEntry(folder.name, { recursive: true });
    }
    return freed;
  }

  /** A branch stands for one content of a file: the one that came last. */
  async #moveRevision(name: string, { repository, file, revision }: StorableFile): Promise<void> {
    for (const { folder, about } of await foldersIn(this.#root)) {
      if (folder.name === name || about.repository !== repository || about.file !== file) continue;
      if (!about.revisions.includes(revision)) continue;
      await writeAbout(folder, { ...about, revisions: about.revisions.filter((one) => one !== revision) });
    }
  }
}

async function openPartial(
  folder: FileSystemDirectoryHandle,
  about: About,
  finished: () => Promise<void>,
  unlock: () => void,
): Promise<PartialFile> {
  const { size } = about;
  const count = Math.ceil(size / chunkSize);
  const sizeOf = (chunk: number) => Math.min(chunkSize, size - chunk * chunkSize);
  const chunks = new Set<number>();
  for (let chunk = 0; chunk < count; chunk++) {
    if ((await chunkFile(folder, chunk))?.size === sizeOf(chunk)) chunks.add(chunk);
  }
  let { version } = about;
  return {
    chunkSize,
    has: (chunk) => chunks.has(chunk),
    get version() {
      return version;
    },
    async setVersion(given) {
      version = given;
      await writeAbout(folder, { ...about, version });
    },
    async write(chunk, bytes) {
      await writeWhole(await folder.getFileHandle(String(chunk), { create: true }), bytes);
      chunks.add(chunk);
    },
    async read(chunk) {
      return new Uint8Array((await (await chunkFile(folder, chunk))?.arrayBuffer()) ?? new ArrayBuffer(0));
    },
    async restart() {
      chunks.clear();
      version = undefined;
      for (let chunk = 0; chunk < count; chunk++) await folder.removeEntry(String(chunk)).catch(() => {});
      await writeAbout(folder, { ...about, version });
    },
    async finish() {
      if (!(await wholeFile(folder, about))) throw new RwkvError(`${about.file}: was removed while it was downloaded`);
      await writeAbout(folder, { ...about, complete: true });
      await finished();
      return pathOf(about);
    },
    async close() {
      unlock();
    },
  };
}

async function writeAbout(folder: FileSystemDirectoryHandle, about: About): Promise<void> {
  await writeWhole(
    await folder.getFileHandle(aboutName, { create: true }),
    new TextEncoder().encode(JSON.stringify(about)),
  );
}

/** Replaces what a file holds: at once where a page may, else, in workers of older browsers, in place. @throws RwkvError when full */
async function writeWhole(handle: FileSystemFileHandle, bytes: Uint8Array): Promise<void> {
  try {
    if ("createWritable" in handle) {
      const stream = await handle.createWritable();
      await stream.write(bytes as Uint8Array<ArrayBuffer>);
      return await stream.close();
    }
    const access = await (handle as FileSystemFileHandle & SyncFiles).createSyncAccessHandle();
    try {
      access.truncate(0);
      access.write(bytes);
      access.flush();
    } finally {
      access.close();
    }
  } catch (cause) {
    const { name } = cause as Error;
    const reason = name === "QuotaExceededError" ? "there is no room for it" : String(cause);
    throw new RwkvError(`the browser's storage cannot be written: ${reason}`, { cause });
  }
}

/** What only workers have. */
interface SyncFiles {
  createSyncAccessHandle(): Promise<{
    truncate(size: number): void;
    write(bytes: Uint8Array): number;
    flush(): void;
    close(): void;
  }>;
}

/** @throws RwkvError when the browser says that it has no room */
async function checkSpace(file: string, missing: number): Promise<void> {
  const { quota = Number.POSITIVE_INFINITY, usage = 0 } = await navigator.storage.estimate();
  if (missing <= quota - usage) return;
  const millions = (bytes: number) => `${Math.ceil(Math.max(0, bytes) / 1e6)} MB`;
  throw new RwkvError(
    `${file}: needs ${millions(missing)}, but the browser gives this site only ${millions(quota - usage)} more`,
  );
}

/** A name for a file's folder. */
async function folderName({ repository, file, etag }: StorableFile): Promise<string> {
  const text = new TextEncoder().encode(JSON.stringify([repository, file, etag]));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", text));
  return Array.from(digest.subarray(0, 20), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Takes a lock among tabs, which ends with the tab. @returns what gives it back */
async function lock(name: string, signal?: AbortSignal, onWait?: () => void): Promise<() => void> {
  const { locks } = navigator;
  if (!locks) return () => {};
  const take = (options: LockOptions) =>
    new Promise<(() => void) | undefined>((resolve, reject) => {
      locks
        .request(name, options, (held) => {
          if (!held) return resolve(undefined);
          return new Promise<void>((unlock) => resolve(unlock));
        })
        .catch(reject);
    });
  const free = await take({ ifAvailable: true });
  if (free) return free;
  onWait?.();
  return (await take({ ...(signal && { signal }) })) as () => void;
}
