// Files in which states are kept (kept-bytes.ts has their format).

import { open } from "node:fs/promises";
import { writeFileAtomically } from "../../platform/node/file-writer.js";
import { decodeHead, decodeKept, encodeKept, headBytes, type Kept } from "./kept-bytes.js";

/**
 * Writes a file, which is there under its name only when it is complete.
 *
 * @throws CheckpointError when it cannot be written
 */
export async function writeKeptFile(path: string, kept: Kept): Promise<void> {
  await writeFileAtomically(path, async (file) => {
    for (const part of encodeKept(kept)) await file.append(part);
  });
}

/**
 * Reads a file.
 *
 * @returns undefined where there is none, or where it is not one, or damaged; the state is not looked into
 * @throws the system's error where it cannot be read, which says nothing of the file
 */
export async function readKeptFile(path: string): Promise<Kept | undefined> {
  return reading(path, async (part, size) => {
    // No more is read, or allocated, than a file of this format has.
    if (decodeHead(await part(Math.min(size, headBytes)), size) === undefined) return undefined;
    return decodeKept(await part(size));
  });
}

/** The same of the head alone. */
export async function readKeptHead(path: string): Promise<unknown> {
  return reading(path, async (part, size) => decodeHead(await part(Math.min(size, headBytes)), size));
}

/** @param use is given the file's size, and a function that reads its first bytes, or those that there are */
async function reading<T>(
  path: string,
  use: (part: (length: number) => Promise<Uint8Array>, size: number) => Promise<T>,
): Promise<T | undefined> {
  const file = await open(path, "r").catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error;
  });
  if (!file) return undefined;
  try {
    const { size } = await file.stat();
    const part = async (length: number) => {
      const bytes = new Uint8Array(length);
      const { bytesRead } = await file.read(bytes, 0, length, 0);
      return bytes.subarray(0, bytesRead);
    };
    return await use(part, size);
  } finally {
    await file.close();
  }
}
