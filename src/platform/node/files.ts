// Files, as Node has them. src/platform/browser/files.ts has the same functions for pages.

import type { Stats } from "node:fs";
import { type FileHandle, open, readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type ByteSource, checkRange } from "../../checkpoints/byte-source.js";
import { CheckpointError } from "../../errors.js";

export { basename, dirname, join };

/** The model in the package. */
export const embeddedModel: string = fileURLToPath(new URL("../../../embedded/", import.meta.url));

/** The names in a folder; undefined for what is none. Pages, which cannot list one, are told names to try. */
export async function listFolder(path: string, _tried: readonly string[] = []): Promise<string[] | undefined> {
  const status = await stat(path).catch(() => undefined);
  return status?.isDirectory() ? readdir(path) : undefined;
}

/** Bytes of a file; undefined where there is none. */
export async function fileSize(path: string): Promise<number | undefined> {
  const status = await stat(path).catch(() => undefined);
  return status?.isFile() ? status.size : undefined;
}

/** A whole file as text. */
export function readText(path: string): Promise<string> {
  return readFile(path, "utf8");
}

/**
 * Opens a file for reading by range.
 *
 * @throws CheckpointError when the file does not exist, is not a regular file, or cannot be read
 */
export async function fileSource(path: string): Promise<ByteSource> {
  const handle: FileHandle = await open(path, "r").catch((cause: NodeJS.ErrnoException) => {
    throw new CheckpointError(path, openFailure(cause), { cause });
  });
  let status: Stats;
  try {
    status = await handle.stat();
    if (!status.isFile()) throw new CheckpointError(path, "expected a regular file");
  } catch (error) {
    await handle.close();
    throw error;
  }
  const source: ByteSource = {
    name: path,
    size: status.size,
    get descriptor() {
      return handle.fd < 0 ? undefined : handle.fd; // it was closed
    },
    async readInto(offset, target) {
      checkRange(source, offset, target.byteLength);
      let done = 0;
      while (done < target.byteLength) {
        const { bytesRead } = await handle.read(target, done, target.byteLength - done, offset + done);
        if (bytesRead === 0) {
          throw new CheckpointError(path, `the file became shorter while it was read (at byte ${offset + done})`);
        }
        done += bytesRead;
      }
    },
    close: () => handle.close(),
  };
  return source;
}

function openFailure(cause: NodeJS.ErrnoException): string {
  if (cause.code === "ENOENT") return "no such file";
  if (cause.code === "EACCES") return "permission denied";
  return `cannot be opened (${cause.code ?? cause.message})`;
}
