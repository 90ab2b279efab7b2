// A checkpoint file on the local disk, read by range.

import { open } from "node:fs/promises";
import { CheckpointError } from "../errors.js";
import { type ByteSource, checkRange } from "./byte-source.js";

/**
 * Opens a file for reading by range.
 *
 * @throws CheckpointError when the file does not exist, is not a regular file, or cannot be read
 */
export async function fileSource(path: string): Promise<ByteSource> {
  const handle = await open(path, "r").catch((cause: NodeJS.ErrnoException) => {
    throw new CheckpointError(path, openFailure(cause), { cause });
  });
  const status = await handle.stat();
  if (!status.isFile()) {
    await handle.close();
    throw new CheckpointError(path, "expected a regular file");
  }
  const source: ByteSource = {
    name: path,
    size: status.size,
    path,
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
