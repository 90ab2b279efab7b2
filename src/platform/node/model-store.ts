// Models that were downloaded, in the cache of Python's huggingface_hub: each finds what the other has. A blob is named by its content, a
// snapshot of a commit has links to blobs, a ref says which commit a branch is at.
// Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
//
// Python's own lock on a blob is not taken, since Node has no such locks: two at once cost bandwidth alone, as each writes a file of its
// own and renames it.

import { randomBytes } from "node:crypto";
import {
  copyFile,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  rmdir,
  stat,
  statfs,
  symlink,
  writeFile,
} from "node:fs/promises";
import { basename, dirname, join, relative, resolve, sep } from "node:path";
import prettyBytes from "pretty-bytes";
import { RwkvError } from "../../errors.js";
import type { ModelStore, PartialFile, RemovableName, StorableFile, StoredModel, StoredName } from "../platform.js";
import { hubCacheFolder, hubSettings, linksAreRefused } from "./hub-settings.js";
import { openPartialBlob, partialEndings, partialFacts } from "./partial-blob.js";
import { socketLock } from "./socket-lock.js";

export { hubSettings };

const prefix = "models--";
const commitPattern = /^[0-9a-f]{40}$/;
/** How often it is asked whether another process has done, in milliseconds. */
const waitPause = 200;

/** The cache, which need not exist. */
export async function openModelStore(): Promise<ModelStore> {
  return new HubCache(resolve(hubCacheFolder()));
}

class HubCache implements ModelStore {
  readonly location: string;
  readonly isOfPage = false;

  constructor(location: string) {
    this.location = location;
  }

  #folder(repository: string): string {
    return join(this.location, prefix + repository.replaceAll("/", "--"));
  }

  async find({ repository, revision, file }: StoredName): Promise<string | undefined> {
    const folder = this.#folder(repository);
    const commit = commitPattern.test(revision)
      ? revision
      : await readRef(join(folder, "refs", ...revision.split("/")));
    if (commit === undefined) return undefined;
    const path = join(folder, "snapshots", commit, ...file.split("/"));
    return (await stat(path).catch(() => undefined))?.isFile() ? path : undefined;
  }

  async begin(file: StorableFile, signal?: AbortSignal, onWait?: () => void): Promise<PartialFile | string> {
    const folder = this.#folder(file.repository);
    const blob = join(folder, "blobs", file.etag);
    const pointer = join(folder, "snapshots", file.commit, ...file.file.split("/"));
    const sizeAt = async (path: string) => (await stat(path).catch(() => undefined))?.size;
    const place = async (isNew: boolean) => {
      if ((await sizeAt(pointer)) !== file.size) await pointTo(blob, pointer, isNew);
      await this.#writeRef(folder, file);
      return pointer;
    };
    const present = async () => {
      if ((await sizeAt(pointer)) === file.size) return place(false);
      return (await sizeAt(blob)) === file.size ? place(false) : undefined;
    };
    const unlock = await this.#lock(blob, present, signal, onWait);
    if (typeof unlock === "string") return unlock;
    try {
      const found = await present();
      if (found !== undefined) {
        await unlock();
        return found;
      }
      await this.#checkSpace(blob, file);
      await mkdir(dirname(pointer), { recursive: true }); // as huggingface_hub does: lists miss it otherwise
    } catch (error) {
      await unlock();
      throw error;
    }
    return openPartialBlob(blob, { ...file, path: pointer }, () => place(true), unlock);
  }

  /** Takes the lock of a blob; or returns the file, if another process has finished it meanwhile. */
  async #lock(
    blob: string,
    present: () => Promise<string | undefined>,
    signal?: AbortSignal,
    onWait?: () => void,
  ): Promise<(() => Promise<void>) | string> {
    for (let told = false; ; told = true) {
      signal?.throwIfAborted();
      const unlock = await socketLock("download", blob);
      if (unlock) return unlock;
      if (!told) onWait?.();
      await new Promise((done) => setTimeout(done, waitPause));
      const found = await present();
      if (found !== undefined) return found;
    }
  }

  /** @throws RwkvError when the disk has no room for what is missing */
  async #checkSpace(blob: string, { size, file }: StorableFile): Promise<void> {
    await mkdir(dirname(blob), { recursive: true }).catch((cause: NodeJS.ErrnoException) => {
      throw new RwkvError(`${dirname(blob)}: cannot be made (${cause.code})`, { cause });
    });
    const partial = await stat(blob + partialEndings[0]).catch(() => undefined);
    const missing = size - (partial?.blocks ?? 0) * 512; // what is written of a file with gaps
    const disk = await statfs(dirname(blob)).catch(() => undefined);
    const free = disk ? disk.bavail * disk.bsize : Number.POSITIVE_INFINITY;
    if (missing <= free) return;
    throw new RwkvError(
      `${file}: needs ${prettyBytes(missing)}, but ${this.location} has only ${prettyBytes(free)} free ` +
        "(rwkv models shows what is there; HF_HUB_CACHE names another folder)",
    );
  }

  async #writeRef(folder: string, { revision, commit }: StorableFile): Promise<void> {
    if (revision === commit) return;
    const path = join(folder, "refs", ...revision.split("/"));
    if ((await readRef(path)) === commit) return;
    await mkdir(dirname(path), { recursive: true });
    const temporary = `${path}.${randomBytes(4).toString("hex")}.tmp`;
    await writeFile(temporary, commit);
    await rename(temporary, path);
  }

  async list(): Promise<StoredModel[]> {
    const folders = (await readdir(this.location).catch(() => [])).filter((name) => name.startsWith(prefix)).sort();
    const all: StoredModel[] = [];
    for (const name of folders) {
      const repository = name.slice(prefix.length).replace("--", "/");
      const folder = join(this.location, name);
      const refs = await this.#refs(folder);
      for (const commit of (await readdir(join(folder, "snapshots")).catch(() => [])).sort()) {
        const revisions = refs.filter((ref) => ref.commit === commit).map((ref) => ref.revision);
        for (const path of await filesIn(join(folder, "snapshots", commit))) {
          const file = relative(join(folder, "snapshots", commit), path)
            .split(sep)
            .join("/");
          const status = await stat(path).catch(() => undefined);
          if (!status?.isFile()) continue;
          const { size } = status;
          all.push({ repository, file, revisions, commit, bytes: size, size, complete: true, path });
        }
      }
      for (const blob of await readdir(join(folder, "blobs")).catch(() => [])) {
        if (!blob.endsWith(partialEndings[0])) continue;
        const { file = blob, ...sizes } = await partialFacts(
          join(folder, "blobs", blob.slice(0, -partialEndings[0].length)),
        );
        all.push({ repository, file, revisions: [], commit: "", ...sizes, complete: false });
      }
    }
    return all;
  }

  async #refs(folder: string): Promise<{ revision: string; commit: string | undefined }[]> {
    const root = join(folder, "refs");
    const paths = await filesIn(root);
    return Promise.all(
      paths.map(async (path) => ({
        revision: relative(root, path).split(sep).join("/"),
        commit: await readRef(path),
      })),
    );
  }

  async remove({ repository, file, revision, commit }: RemovableName): Promise<number | undefined> {
    const folder = this.#folder(repository);
    const snapshots = join(folder, "snapshots");
    const ref = revision === undefined ? undefined : await readRef(join(folder, "refs", ...revision.split("/")));
    const commits = [commit, ref ?? revision].filter((one) => one !== undefined);
    const wanted = file?.split("/").join(sep);
    const all = await filesIn(snapshots);
    const removed = all.filter((path) => {
      const inside = relative(snapshots, path);
      const end = inside.indexOf(sep);
      return (
        (wanted === undefined || inside.slice(end + 1) === wanted) &&
        commits.every((one) => inside.slice(0, end) === one)
      );
    });
    const blobs = await readdir(join(folder, "blobs")).catch(() => []);
    const partial: string[] = [];
    for (const name of blobs) {
      const ending = partialEndings.find((end) => name.endsWith(end));
      if (ending === undefined) continue;
      const of = await partialFacts(join(folder, "blobs", name.slice(0, -ending.length)));
      if (file === undefined || of.file === file) partial.push(name);
    }
    if (removed.length === 0 && partial.length === 0) return undefined;
    const kept = new Set(
      (await Promise.all(all.filter((path) => !removed.includes(path)).map(blobOf))).filter(Boolean),
    );
    const targets = new Set(partial.map((name) => join(folder, "blobs", name)));
    for (const path of removed) {
      const blob = await blobOf(path);
      if (blob === undefined) targets.add(path);
      else {
        if (!kept.has(blob) && dirname(blob) === join(folder, "blobs")) targets.add(blob);
        await rm(path, { force: true });
      }
    }
    let freed = 0;
    for (const path of targets) {
      const { blocks = 0, size = 0 } = (await lstat(path).catch(() => undefined)) ?? {};
      freed += partial.includes(basename(path)) ? blocks * 512 : size;
      await rm(path, { force: true });
    }
    await removeEmpty(snapshots);
    if (
      (await filesIn(snapshots)).length === 0 &&
      (await readdir(join(folder, "blobs")).catch(() => [])).length === 0
    ) {
      await rm(folder, { recursive: true, force: true });
    }
    return freed;
  }
}

/** The commit in a ref. */
async function readRef(path: string): Promise<string | undefined> {
  const commit = (await readFile(path, "utf8").catch(() => "")).trim();
  return commitPattern.test(commit) ? commit : undefined;
}

/** Makes a snapshot's file of a blob: a link, or where there can be none the blob itself if it is new, else a copy. */
async function pointTo(blob: string, pointer: string, isNew: boolean): Promise<void> {
  await mkdir(dirname(pointer), { recursive: true });
  await rm(pointer, { force: true });
  if (!linksAreRefused()) {
    try {
      return await symlink(relative(dirname(pointer), blob), pointer);
    } catch (error) {
      const { code = "" } = error as NodeJS.ErrnoException;
      if (code === "EEXIST") return; // by another process, between the two
      if (!["EPERM", "EACCES", "ENOSYS", "ENOTSUP", "EOPNOTSUPP"].includes(code)) throw error;
    }
  }
  if (isNew) return rename(blob, pointer);
  const temporary = `${pointer}.${randomBytes(4).toString("hex")}.tmp`;
  await copyFile(blob, temporary);
  await rename(temporary, pointer);
}

/** The blob that a snapshot's file is a link to; undefined for a file of its own. */
async function blobOf(path: string): Promise<string | undefined> {
  const target = await readlink(path).catch(() => undefined);
  return target === undefined ? undefined : resolve(dirname(path), target);
}

/** The files and links below a folder. */
async function filesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true, recursive: true }).catch(() => []);
  return entries.filter((entry) => !entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name));
}

/** Removes the empty folders below a folder. */
async function removeEmpty(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true }).catch(() => [])) {
    if (!entry.isDirectory()) continue;
    await removeEmpty(join(folder, entry.name));
    await rmdir(join(folder, entry.name)).catch(() => {});
  }
}
