// Reads a range of an open file.

import type { FileHandle } from "node:fs/promises";
import { CheckpointError } from "../../errors.js";

/** Fills `target` from a file. @throws CheckpointError when it cannot be read or ends before that */
export async function readFully(handle: FileHandle, path: string, offset: number, target: Uint8Array): Promise<void> {
  for (let done = 0; done < target.byteLength; ) {
    const reading = handle.read(target, done, target.byteLength - done, offset + done);
    const { bytesRead } = await reading.catch((cause: NodeJS.ErrnoException) => {
      const reason = cause.code === "EBADF" ? "was closed before it was read" : `cannot be read (${cause.code})`;
      throw new CheckpointError(path, reason, { cause });
    });
    if (bytesRead === 0) {
      throw new CheckpointError(path, `the file became shorter while it was read (at byte ${offset + done})`);
    }
    done += bytesRead;
  }
}
