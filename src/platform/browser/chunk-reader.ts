// Reads what is there of a file that a page keeps, chunk by chunk, while others are still written.

import { CheckpointError } from "../../errors.js";
import type { PartialReader } from "../platform.js";
import { chunkFile, chunkSize } from "./kept-files.js";

/** @param name of the file, for errors */
export function chunkReader(folder: FileSystemDirectoryHandle, name: string): PartialReader {
  /** Chunks that were read of: finding one again takes longer than reading a little. */
  const chunks = new Map<number, File>();
  const chunkAt = async (chunk: number): Promise<File> => {
    const found = chunks.get(chunk) ?? (await chunkFile(folder, chunk));
    if (!found) throw new CheckpointError(name, "was removed from this site's storage while it was read");
    chunks.set(chunk, found);
    return found;
  };
  return {
    async readInto(offset, target) {
      for (let done = 0; done < target.byteLength; ) {
        const at = (offset + done) % chunkSize;
        const length = Math.min(chunkSize - at, target.byteLength - done);
        const file = await chunkAt(Math.floor((offset + done) / chunkSize));
        const bytes = new Uint8Array(await file.slice(at, at + length).arrayBuffer());
        if (bytes.length < length) throw new CheckpointError(name, "a part of it in this site's storage is too short");
        target.set(bytes, done);
        done += length;
      }
    },
    async close() {
      chunks.clear();
    },
  };
}
