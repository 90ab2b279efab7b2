// The files that a page keeps, in the origin's private file system: how they lie there, and reading them. model-store.ts writes them.
//
// A file is a folder, with what is known of it and its chunks as files of their own. A chunk appears when it is whole, so that a tab may be
// closed at any moment; and the file is a Blob of all of them, which is read from the disk and is never in memory as a whole.
//
// Kept files have paths, so that what lies beside a model is found as everywhere: rwkv-models:/repository/commit/file, each part escaped.

import { RwkvError } from "../../errors.js";

const rootName = "rwkv-models";
const scheme = `${rootName}:`;
export const aboutName = "about.json";
export const chunkSize = 2 ** 22;

/** What a folder holds. */
export interface About {
  readonly repository: string;
  readonly file: string;
  readonly revisions: readonly string[];
  readonly commit: string;
  readonly size: number;
  readonly version?: string | undefined;
  /** Whether all of it is there, and its sum was right. */
  readonly complete: boolean;
  /** When it became so; later contents of a file have larger numbers. */
  readonly finished?: number;
}

/** @throws RwkvError where pages may not keep files */
export async function openRoot(): Promise<FileSystemDirectoryHandle> {
  try {
    return await (await navigator.storage.getDirectory()).getDirectoryHandle(rootName, { create: true });
  } catch (cause) {
    throw new RwkvError(
      "this page cannot keep files: expected a page over https: or from localhost, in a window that is not private, in a browser with " +
        "an origin private file system",
      { cause },
    );
  }
}

export interface KeptFolder {
  readonly folder: FileSystemDirectoryHandle;
  readonly about: About;
}

export async function foldersIn(root: FileSystemDirectoryHandle): Promise<KeptFolder[]> {
  const found: KeptFolder[] = [];
  for await (const folder of root.values()) {
    if (folder.kind !== "directory") continue;
    const about = await readAbout(folder);
    if (about) found.push({ folder, about });
  }
  return found;
}

/**
 * The same, each complete file with the revisions that stand for it. A branch stands for one content of a file: of those that were finished
 * for it, the last. So finishing a file is writing what is known of that one alone.
 */
export function withOwnRevisions(all: readonly KeptFolder[]): KeptFolder[] {
  const last = new Map<string, KeptFolder>();
  const keyOf = ({ repository, file }: About, revision: string) => JSON.stringify([repository, file, revision]);
  const timeOf = (kept: KeptFolder | undefined) => kept?.about.finished ?? 0;
  for (const kept of all.filter(({ about }) => about.complete)) {
    for (const revision of kept.about.revisions) {
      const key = keyOf(kept.about, revision);
      if (!last.has(key) || timeOf(kept) > timeOf(last.get(key))) last.set(key, kept);
    }
  }
  return all.map((kept) => {
    const { folder, about } = kept;
    const revisions = about.revisions.filter((one) => !about.complete || last.get(keyOf(about, one)) === kept);
    return revisions.length === about.revisions.length ? kept : { folder, about: { ...about, revisions } };
  });
}

/** Whether a path is that of a file that is kept, or of a folder of them. */
export function isKeptPath(path: string): boolean {
  return path.startsWith(`${scheme}/`);
}

export function pathOf({ repository, commit, file }: About): string {
  return `${scheme}/${[repository, commit, ...file.split("/")].map(encodeURIComponent).join("/")}`;
}

/** The names of files in a folder; undefined for the path of a file. */
export async function keptNames(path: string): Promise<string[] | undefined> {
  if (!path.endsWith("/")) return undefined;
  const paths = (await completeFolders()).map(({ about }) => pathOf(about));
  const inside = paths.filter((one) => one.startsWith(path)).map((one) => one.slice(path.length));
  return inside.filter((name) => !name.includes("/")).map(decodeURIComponent);
}

/** A file that is kept; undefined where there is none. */
export async function keptFile(path: string): Promise<File | undefined> {
  const found = (await completeFolders()).find(({ about }) => pathOf(about) === path);
  return found && wholeFile(found.folder, found.about);
}

async function completeFolders(): Promise<KeptFolder[]> {
  const root = await openRoot();
  return (await foldersIn(root)).filter(({ about }) => about.complete);
}

/** Chunks as one file; undefined where one is missing. */
export async function wholeFile(folder: FileSystemDirectoryHandle, { file, size }: About): Promise<File | undefined> {
  const parts: File[] = [];
  for (let chunk = 0; chunk * chunkSize < size; chunk++) {
    const part = await chunkFile(folder, chunk);
    if (part?.size !== Math.min(chunkSize, size - chunk * chunkSize)) return undefined;
    parts.push(part);
  }
  return new File(parts, file.slice(file.lastIndexOf("/") + 1));
}

export async function chunkFile(folder: FileSystemDirectoryHandle, chunk: number): Promise<File | undefined> {
  try {
    return await (await folder.getFileHandle(String(chunk))).getFile();
  } catch {
    return undefined;
  }
}

/** Sizes of the chunks that are there. What the folder holds is asked, never what a size that a server told would have: it may be any. */
export async function chunkSizes(folder: FileSystemDirectoryHandle): Promise<Map<number, number>> {
  const sizes = new Map<number, number>();
  for await (const entry of folder.values()) {
    if (entry.kind !== "file" || !/^\d+$/.test(entry.name)) continue;
    const file = await chunkFile(folder, Number(entry.name));
    if (file) sizes.set(Number(entry.name), file.size);
  }
  return sizes;
}

export async function readAbout(folder: FileSystemDirectoryHandle): Promise<About | undefined> {
  try {
    return JSON.parse(await (await (await folder.getFileHandle(aboutName)).getFile()).text()) as About;
  } catch {
    return undefined; // another tab is removing it, or this one was closed before it was written
  }
}
