// A file that appears under its name only when it is complete. Pages have src/platform/browser/file-writer.ts instead.

import { rmSync } from "node:fs";
import { type FileHandle, open, realpath, rename, rm, stat } from "node:fs/promises";
import { onExit } from "signal-exit";
import { CheckpointError } from "../../errors.js";
import type { FileAppender } from "../platform.js";
import { partPath } from "./part-files.js";

/** Temporary files of writes that have not ended, which are removed when the process ends. */
const unfinished = new Set<string>();
let stopWatching = () => {};
const removeUnfinished = () => {
  for (const path of unfinished) rmSync(path, { force: true });
};

/**
 * Writes a file through a temporary one beside it, which is renamed when `write` has finished and removed when it fails or
 * the process exits, or is ended by a signal that can be caught. Writes to one path at the same time each have their own; the
 * last to finish stays.
 *
 * @throws CheckpointError when the file cannot be written (no such folder, no permission, disk full, not a regular file)
 */
export async function writeFileAtomically(path: string, write: (file: FileAppender) => Promise<void>): Promise<void> {
  const target = await realpath(path).catch(() => path); // what a symbolic link points to is replaced, not the link
  const status = await stat(target).catch(() => undefined);
  if (status && !status.isFile()) {
    throw new CheckpointError(
      path,
      `cannot be written: expected a regular file, found ${status.isDirectory() ? "a folder" : "a device"}`,
    );
  }
  const temporary = partPath(target);
  let handle: FileHandle | undefined;
  if (unfinished.size === 0) stopWatching = onExit(removeUnfinished);
  unfinished.add(temporary);
  try {
    handle = await open(temporary, "wx");
    await write(appender(handle));
    await handle.sync();
    await handle.close();
    handle = undefined;
    await rename(temporary, target);
  } catch (cause) {
    await handle?.close().catch(() => {});
    await rm(temporary, { force: true }).catch(() => {});
    if ((cause as NodeJS.ErrnoException).syscall === undefined) throw cause;
    throw new CheckpointError(path, `cannot be written (${(cause as NodeJS.ErrnoException).code})`, { cause });
  } finally {
    unfinished.delete(temporary);
    if (unfinished.size === 0) stopWatching();
  }
}

function appender(handle: FileHandle): FileAppender {
  let position = 0;
  const writeAt = async (bytes: Uint8Array, at: number) => {
    let done = 0;
    while (done < bytes.byteLength) {
      done += (await handle.write(bytes, done, bytes.byteLength - done, at + done)).bytesWritten;
    }
  };
  return {
    get position() {
      return position;
    },
    async append(bytes) {
      await writeAt(bytes, position);
      position += bytes.byteLength;
    },
    patch: (at, bytes) => writeAt(bytes, at),
  };
}
