// The store of models of a page: writes files as kept-files.ts has them, in chunks, so that any tab goes on where another was closed.

import { RwkvError } from "../../errors.js";
import type { ModelStore, PartialFile, RemovableName, StorableFile, StoredModel, StoredName } from "../platform.js";
import { chunkReader } from "./chunk-reader.js";
import {
  type About,
  aboutName,
  chunkFile,
  chunkSize,
  chunkSizes,
  foldersIn,
  type KeptFolder,
  openRoot,
  pathOf,
  wholeFile,
  withOwnRevisions,
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
    for (const { folder, about } of await this.#folders()) {
      if (!about.complete || about.repository !== repository || about.file !== file) continue;
      if (about.commit !== revision && !about.revisions.includes(revision)) continue;
      if (await wholeFile(folder, about)) return pathOf(about);
    }
    return undefined;
  }

  async begin(file: StorableFile, signal?: AbortSignal, onWait?: () => void): Promise<PartialFile | string> {
    const name = await folderName(file);
    const unlock = await lock(lockName(name), signal, onWait);
    try {
      const folder = await this.#root.getDirectoryHandle(name, { create: true }).catch((cause) => {
        throw storageError(cause);
      });
      const all = await this.#folders();
      const before = all.find((kept) => kept.folder.name === name)?.about;
      const finishedNow = () => Math.max(Date.now(), ...all.map(({ about: { finished = 0 } }) => finished + 1));
      const revisions = [...new Set([...(before?.revisions ?? []), file.revision])];
      const { repository, commit, size } = file;
      const about: About = { ...before, repository, file: file.file, revisions, commit, size, complete: false };
      if (before?.complete && before.size === size && (await wholeFile(folder, before))) {
        await writeAbout(folder, { ...about, complete: true, finished: finishedNow() });
        await unlock();
        return pathOf(about);
      }
      const here = await chunkSizes(folder);
      try {
        await checkSpace(file.file, size - sumOf(here));
      } catch (error) {
        if (!before) await this.#removeFolder(name);
        throw error;
      }
      await writeAbout(folder, about);
      return openPartial(folder, about, here, finishedNow, unlock);
    } catch (error) {
      await unlock();
      throw error;
    }
  }

  async alone<T>(name: string, bytes: number, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const unlock = await lock(lockName(name), signal);
    try {
      await checkSpace(name, bytes);
      return await work();
    } finally {
      await unlock();
    }
  }

  async ifAlone(name: string, work: () => Promise<void>): Promise<void> {
    const unlock = await lockNow(lockName(name));
    try {
      if (unlock) await work();
    } finally {
      await unlock?.();
    }
  }

  async list(): Promise<StoredModel[]> {
    const all: StoredModel[] = [];
    for (const { folder, about } of await this.#folders()) {
      const bytes = await bytesIn(folder);
      const { repository, file, revisions, commit, complete, size } = about;
      const path = complete && { path: pathOf(about) };
      all.push({ repository, file, revisions, commit, bytes, size, complete, ...path });
    }
    return all;
  }

  async remove({ repository, file, revision, commit }: RemovableName): Promise<number | undefined> {
    const isMeant = ({ about }: KeptFolder) =>
      about.repository === repository &&
      (file === undefined || about.file === file) &&
      (commit === undefined || about.commit === commit) &&
      (revision === undefined || about.commit === revision || about.revisions.includes(revision));
    const folders = await foldersIn(this.#root);
    const settled = withOwnRevisions(folders);
    // What stood for a revision before must not do so again when the last is gone.
    for (const kept of settled) if (!folders.includes(kept)) await writeAbout(kept.folder, kept.about);
    const meant = settled.filter(isMeant);
    const unlocks: Unlock[] = [];
    try {
      // All or nothing.
      for (const { folder, about } of meant) {
        const unlock = await lockNow(lockName(folder.name));
        if (!unlock) {
          throw new RwkvError(`${about.file}: is being downloaded; it can be removed when that has ended`);
        }
        unlocks.push(unlock);
      }
      let freed: number | undefined;
      for (const { folder, about } of meant) {
        const revisions = about.revisions.filter((one) => one !== revision);
        if (revision !== undefined && about.commit !== revision && revisions.length > 0) {
          await writeAbout(folder, { ...about, revisions });
          freed ??= 0;
        } else {
          const bytes = await bytesIn(folder);
          if (await this.#removeFolder(folder.name)) freed = (freed ?? 0) + bytes;
        }
      }
      return freed;
    } finally {
      await Promise.all(unlocks.map((unlock) => unlock()));
    }
  }

  /** @returns whether it was there */
  async #removeFolder(name: string): Promise<boolean> {
    try {
      await this.#root.removeEntry(name, { recursive: true });
      return true;
    } catch (cause) {
      if ((cause as Error).name === "NotFoundError") return false;
      throw storageError(cause);
    }
  }

  async #folders(): Promise<KeptFolder[]> {
    return withOwnRevisions(await foldersIn(this.#root));
  }
}

function openPartial(
  folder: FileSystemDirectoryHandle,
  about: About,
  here: ReadonlyMap<number, number>,
  finishedNow: () => number,
  unlock: Unlock,
): PartialFile {
  const { size } = about;
  const isWhole = (chunk: number, bytes: number) =>
    bytes > 0 && bytes === Math.min(chunkSize, size - chunk * chunkSize);
  const chunks = new Set([...here].filter((entry) => isWhole(...entry)).map(([chunk]) => chunk));
  let { version } = about;
  return {
    chunkSize,
    path: pathOf(about),
    openReader: async () => chunkReader(folder, about.file),
    has: (chunk) => chunks.has(chunk),
    get version() {
      return version;
    },
    async setVersion(given) {
      version = given;
      await writeAbout(folder, { ...about, version });
    },
    async write(chunk, bytes) {
      await writeWhole(folder, String(chunk), bytes);
      chunks.add(chunk);
    },
    async read(chunk) {
      return new Uint8Array((await (await chunkFile(folder, chunk))?.arrayBuffer()) ?? new ArrayBuffer(0));
    },
    async restart() {
      chunks.clear();
      version = undefined;
      for (const chunk of (await chunkSizes(folder)).keys()) await folder.removeEntry(String(chunk)).catch(() => {});
      await writeAbout(folder, { ...about, version });
    },
    async finish() {
      if (!(await wholeFile(folder, about))) throw new RwkvError(`${about.file}: was removed while it was downloaded`);
      // The one write by which it is there.
      await writeAbout(folder, { ...about, complete: true, finished: finishedNow() });
      return pathOf(about);
    },
    close: unlock,
  };
}

async function writeAbout(folder: FileSystemDirectoryHandle, about: About): Promise<void> {
  await writeWhole(folder, aboutName, new TextEncoder().encode(JSON.stringify(about)));
}

/** Replaces what a file holds: at once where a page may, else, in workers of older browsers, in place. @throws RwkvError when full */
async function writeWhole(folder: FileSystemDirectoryHandle, name: string, bytes: Uint8Array): Promise<void> {
  try {
    const handle = await folder.getFileHandle(name, { create: true });
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
    throw storageError(cause);
  }
}

function storageError(cause: unknown): RwkvError {
  const { name } = cause as Error;
  const reasons: Record<string, string> = {
    QuotaExceededError: "there is no room for it",
    NotFoundError: "what was there has been removed",
  };
  return new RwkvError(`the browser's storage cannot be written: ${reasons[name] ?? String(cause)}`, { cause });
}

function sumOf(sizes: ReadonlyMap<number, number>): number {
  return [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0);
}

async function bytesIn(folder: FileSystemDirectoryHandle): Promise<number> {
  return sumOf(await chunkSizes(folder));
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

const lockName = (folder: string) => `rwkv-model-${folder}`;

/** Gives a lock back; resolved when others may have it. */
type Unlock = () => Promise<void>;

/** Takes a lock among tabs, which ends with the tab. */
async function lock(name: string, signal?: AbortSignal, onWait?: () => void): Promise<Unlock> {
  const free = await lockNow(name);
  if (free) return free;
  onWait?.();
  return (await takeLock(name, { ...(signal && { signal }) })) as Unlock;
}

/** Takes a lock if nobody has it. */
function lockNow(name: string): Promise<Unlock | undefined> {
  return takeLock(name, { ifAvailable: true });
}

async function takeLock(name: string, options: LockOptions): Promise<Unlock | undefined> {
  const { locks } = navigator;
  if (!locks) return async () => {};
  return new Promise((resolve, reject) => {
    const ended = locks.request(name, options, (held) => {
      if (!held) return resolve(undefined);
      return new Promise<void>((unlock) => {
        resolve(async () => {
          unlock();
          await ended;
        });
      });
    });
    ended.catch(reject);
  });
}
