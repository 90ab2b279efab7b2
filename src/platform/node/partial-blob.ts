// A file of the hub's cache while it is downloaded: the bytes, in any order, and beside them a list of the chunks that are there. A chunk is
// listed after it was written, so that one more is lost than is listed, whenever the process ends.
//
// Its name is not the one that huggingface_hub had for unfinished files: older versions would go on at its end, which says nothing here.

import { constants } from "node:fs";
import { type FileHandle, mkdir, open, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { CheckpointError } from "../../errors.js";
import type { PartialFile } from "../platform.js";
import { readFully } from "./read-fully.js";

const chunkSize = 2 ** 20;
/** Ends of the names of the bytes and of the list. */
export const partialEndings = [".rwkv.incomplete", ".rwkv.chunks"] as const;

/** What is known of a file that is not whole yet: its path in the repository, and the bytes that are there. @param blob of the whole file */
export async function partialFacts(blob: string): Promise<{ file: string | undefined; bytes: number; size?: number }> {
  const lines = (await readFile(blob + partialEndings[1], "utf8").catch(() => "")).split("\n").slice(0, -1);
  try {
    const [first, ...others] = lines.map((line) => JSON.parse(line));
    const chunks = new Set(others.filter((line) => "chunk" in line).map(({ chunk }) => chunk));
    const { size, chunkSize, file } = first;
    let bytes = 0;
    for (const chunk of chunks) bytes += Math.max(0, Math.min(chunkSize, size - chunk * chunkSize)) || 0;
    return { file: typeof file === "string" ? file : undefined, bytes, ...(Number.isSafeInteger(size) && { size }) };
  } catch {
    return { file: undefined, bytes: 0 };
  }
}

/**
 * Opens what there is of a file, or begins it.
 *
 * @param blob the path of the whole file
 * @param file its path in the repository, for lists
 * @param path that it will have
 * @param finish puts it in its place
 */
export async function openPartialBlob(
  blob: string,
  { size, file, path }: { readonly size: number; readonly file: string; readonly path: string },
  finish: (path: string) => Promise<string>,
  unlock: () => Promise<void>,
): Promise<PartialFile> {
  const [dataPath, listPath] = partialEndings.map((ending) => blob + ending) as [string, string];
  const chunks = new Set<number>();
  let version: string | undefined;
  let data: FileHandle | undefined;
  let list: FileHandle | undefined;
  /** Lines are added in turn. */
  let writing: Promise<void> = Promise.resolve();

  const failed = (cause: NodeJS.ErrnoException): never => {
    const reason = cause.code === "ENOSPC" ? "the disk is full" : (cause.code ?? cause.message);
    throw new CheckpointError(dataPath, `cannot be written (${reason})`, { cause });
  };
  const note = (line: object): Promise<void> => {
    writing = writing.then(() => list?.appendFile(`${JSON.stringify(line)}\n`)).catch(failed);
    return writing;
  };
  const close = async () => {
    await Promise.all([data?.close(), list?.close()]);
    data = list = undefined;
  };
  const begin = async () => {
    await mkdir(dirname(blob), { recursive: true });
    data = await open(dataPath, constants.O_RDWR | constants.O_CREAT, 0o666);
    list = await open(listPath, "a");
    if (chunks.size === 0) await note({ size, chunkSize, file });
  };

  const written = (await stat(dataPath).catch(() => undefined))?.size ?? 0;
  readList((await readFile(listPath, "utf8").catch(() => "")).split("\n").slice(0, -1));
  if (chunks.size === 0) await rm(listPath, { force: true });
  try {
    await begin();
  } catch (error) {
    await close();
    await unlock();
    failed(error as NodeJS.ErrnoException);
  }

  /** What is cut off or made for other chunks counts for nothing. */
  function readList(lines: readonly string[]): void {
    try {
      const [first, ...others] = lines.map((line) => JSON.parse(line));
      if (first?.size !== size || first.chunkSize !== chunkSize) return;
      for (const line of others) {
        // The bytes may have been removed without the list, as by hf cache prune.
        if (Math.min(size, (line.chunk + 1) * chunkSize) <= written) chunks.add(line.chunk);
        if ("version" in line) version = line.version ?? undefined;
      }
    } catch {
      chunks.clear();
      version = undefined;
    }
  }

  return {
    chunkSize,
    path,
    has: (chunk) => chunks.has(chunk),
    get version() {
      return version;
    },
    async setVersion(given) {
      version = given;
      await note({ version: given ?? null });
    },
    async write(chunk, bytes) {
      for (let done = 0; done < bytes.length; ) {
        const position = chunk * chunkSize + done;
        const written = data?.write(bytes, done, bytes.length - done, position);
        if (!written) throw new CheckpointError(dataPath, "was closed while it was written");
        done += (await written.catch(failed)).bytesWritten;
      }
      await note({ chunk });
      chunks.add(chunk);
    },
    async read(chunk) {
      const bytes = new Uint8Array(Math.min(chunkSize, size - chunk * chunkSize));
      for (let done = 0; done < bytes.length; ) {
        const position = chunk * chunkSize + done;
        const { bytesRead } = (await data?.read(bytes, done, bytes.length - done, position)) ?? { bytesRead: 0 };
        // The rest is zeros, so that the sum is another.
        if (bytesRead === 0) break;
        done += bytesRead;
      }
      return bytes;
    },
    async openReader() {
      // Of its own: the other is closed when the file is renamed.
      const handle = await open(dataPath, "r").catch((cause: NodeJS.ErrnoException) => {
        throw new CheckpointError(dataPath, `cannot be opened (${cause.code})`, { cause });
      });
      return {
        get descriptor() {
          return handle.fd < 0 ? undefined : handle.fd; // it was closed
        },
        readInto: (offset, target) => readFully(handle, path, offset, target),
        close: () => handle.close(),
      };
    },
    async restart() {
      await close();
      chunks.clear();
      version = undefined;
      // Removed rather than cut: where locks do not work, another process may have it, under its whole name by now.
      await Promise.all([rm(dataPath, { force: true }), rm(listPath, { force: true })]);
      await begin().catch(failed);
    },
    async finish() {
      await data?.sync().catch(failed);
      await close();
      await rename(dataPath, blob).catch((cause: NodeJS.ErrnoException) => {
        if (cause.code !== "ENOENT") failed(cause);
      });
      // Where locks do not work, another process may have renamed it.
      const found = await stat(blob).catch(() => undefined);
      if (found?.size !== size) throw new CheckpointError(blob, "was removed while it was downloaded");
      await rm(listPath, { force: true });
      return finish(blob);
    },
    async close() {
      try {
        await writing.catch(() => {});
        await close();
      } finally {
        await unlock();
      }
    },
  };
}
