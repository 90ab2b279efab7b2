// A file that appears under its name only when it is complete. src/platform/browser/file-writer.ts stands for it in pages.

import { rmSync } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { CheckpointError } from "../../errors.js";

/** Appends to a file and knows its position. */
export interface FileAppender {
  readonly position: number;
  append(bytes: Uint8Array): Promise<void>;
  /** Overwrites bytes written before. */
  patch(position: number, bytes: Uint8Array): Promise<void>;
}

/**
 * Writes a file through a temporary one beside it, which is renamed when `write` has finished and removed when it fails.
 *
 * @throws CheckpointError when the file cannot be written (no such folder, no permission, disk full)
 */
export async function writeFileAtomically(path: string, write: (file: FileAppender) => Promise<void>): Promise<void> {
  const temporary = `${path}.${process.pid}.part`;
  const removeOnExit = () => rmSync(temporary, { force: true });
  let handle: FileHandle | undefined;
  process.once("exit", removeOnExit);
  try {
    handle = await open(temporary, "w");
    await write(appender(handle));
    await handle.sync();
    await handle.close();
    handle = undefined;
    await rename(temporary, path);
  } catch (cause) {
    await handle?.close().catch(() => {});
    await rm(temporary, { force: true });
    if ((cause as NodeJS.ErrnoException).syscall === undefined) throw cause;
    throw new CheckpointError(path, `cannot be written (${(cause as NodeJS.ErrnoException).code})`, { cause });
  } finally {
    process.off("exit", removeOnExit);
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
