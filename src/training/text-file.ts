// Reads a file of text in parts, so that it may be larger than a string can be. What is not text in UTF-8 is refused, with the
// place.

import { type FileHandle, open } from "node:fs/promises";
import { TrainingError } from "../errors.js";
import { invalidReason, utf16Reason } from "../text-files.js";

/** Bytes that are read and decoded at once. */
const chunkSize = 2 ** 17;

/**
 * The text of a file without its byte order mark, in parts that do not depend on how the system hands it out.
 *
 * @throws TrainingError for what cannot be read, or is not UTF-8 text
 */
export async function* textParts(path: string): AsyncGenerator<string, void, void> {
  const handle = await open(path, "r").catch((cause) => {
    throw unreadable(path, cause);
  });
  try {
    yield* decoded(path, handle);
  } finally {
    await handle.close();
  }
}

async function* decoded(path: string, handle: FileHandle): AsyncGenerator<string, void, void> {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const buffer = new Uint8Array(chunkSize);
  let offset = 0; // of the buffer's first byte in the file
  let kept = 0; // bytes of an unfinished character
  for (;;) {
    const filled = kept + (await fill(path, handle, buffer.subarray(kept)));
    const last = filled < buffer.length;
    const bytes = buffer.subarray(0, last ? filled : completeLength(buffer));
    checkNoBinary(path, bytes, offset);
    let text: string;
    try {
      text = decoder.decode(bytes);
    } catch (cause) {
      throw new TrainingError(`${path}: ${invalidReason(bytes, offset)}`, { cause });
    }
    if (offset === 0 && text.startsWith("\ufeff")) text = text.slice(1);
    if (text !== "") yield text;
    if (last) return;
    offset += bytes.length;
    kept = filled - bytes.length;
    buffer.copyWithin(0, bytes.length, filled);
  }
}

/** Reads until the buffer is full or the file ends; a pipe gives less at a time. */
async function fill(path: string, handle: FileHandle, target: Uint8Array): Promise<number> {
  let filled = 0;
  while (filled < target.length) {
    const { bytesRead } = await handle.read(target, filled, target.length - filled, null).catch((cause) => {
      throw unreadable(path, cause);
    });
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return filled;
}

function checkNoBinary(path: string, bytes: Uint8Array, offset: number): void {
  const wide = offset === 0 ? utf16Reason(bytes) : undefined;
  if (wide !== undefined) throw new TrainingError(`${path}: ${wide}`);
  const zero = bytes.indexOf(0);
  if (zero < 0) return;
  throw new TrainingError(`${path}: expected text, found a binary file (a zero byte at offset ${offset + zero})`);
}

/** How many bytes there are up to the last character that the next ones may continue. */
function completeLength(bytes: Uint8Array): number {
  for (let length = 1; length <= 3; length++) {
    const byte = bytes[bytes.length - length] as number;
    if (byte < 0x80) break;
    if (byte < 0xc0) continue; // in the midst of a character
    const size = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
    return size > length ? bytes.length - length : bytes.length;
  }
  return bytes.length;
}

/** An error that says in words why a file or folder cannot be read. */
export function unreadable(path: string, cause: unknown): TrainingError {
  const { code } = cause as NodeJS.ErrnoException;
  const reasons: Record<string, string> = { ENOENT: "no such file or folder", EACCES: "permission denied" };
  return new TrainingError(`${path}: cannot be read (${reasons[code ?? ""] ?? code ?? String(cause)})`, { cause });
}
