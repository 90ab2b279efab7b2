// The format of files in which states are kept: a head that says what it is, a body, and a saved state, each with a checksum, so
// that a file which was not written to its end, or was changed since, is known by its content. All numbers are little-endian.
//
//   0  "RWKVKEPT"           12  bytes of the head (u32)   20  bytes of the state (u32)    28  CRC-32 of the body (u32)
//   8  format version u32   16  bytes of the body (u32)   24  CRC-32 of the head (u32)    32  head (JSON), body, state
//
// The state is a saved state, with a checksum of its own. The checksum of the head is over the four numbers before it, too.

import { open } from "node:fs/promises";
import { crc32 } from "../../checksum.js";
import { writeFileAtomically } from "../../platform/node/file-writer.js";

const magic = "RWKVKEPT";
const formatVersion = 1;
const fixedSize = 32;
/** The most bytes of a head: some names and numbers. */
const maxHead = 2 ** 16;

/** What a file holds. */
export interface KeptFile {
  /** Any JSON. */
  readonly head: unknown;
  readonly body: Uint8Array;
  readonly state: Uint8Array;
}

/**
 * Writes a file, which is there under its name only when it is complete.
 *
 * @throws CheckpointError when it cannot be written
 */
export async function writeKeptFile(path: string, { head, body, state }: KeptFile): Promise<void> {
  const headBytes = new TextEncoder().encode(JSON.stringify(head));
  const fixed = new Uint8Array(fixedSize);
  const view = new DataView(fixed.buffer);
  fixed.set(new TextEncoder().encode(magic));
  [formatVersion, headBytes.length, body.length, state.length].forEach((value, i) => {
    view.setUint32(8 + i * 4, value, true);
  });
  view.setUint32(24, crc32(headBytes, crc32(fixed.subarray(8, 24))), true);
  view.setUint32(28, crc32(body), true);
  await writeFileAtomically(path, async (file) => {
    await file.append(fixed);
    await file.append(headBytes);
    await file.append(body);
    await file.append(state);
  });
}

/**
 * Reads a file.
 *
 * @param part "head" to read no more than that
 * @returns undefined where there is none, or where it is not one, or damaged; the state is not looked into
 * @throws the system's error where it cannot be read, which says nothing of the file
 */
export async function readKeptFile(path: string, part: "head" | "all"): Promise<KeptFile | undefined> {
  const file = await open(path, "r").catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error;
  });
  if (!file) return undefined;
  try {
    const { size } = await file.stat();
    const read = async (at: number, length: number) => {
      const bytes = new Uint8Array(length);
      const { bytesRead } = await file.read(bytes, 0, length, at);
      return bytesRead === length ? bytes : undefined;
    };
    const fixed = await read(0, fixedSize);
    if (!fixed || new TextDecoder("latin1").decode(fixed.subarray(0, 8)) !== magic) return undefined;
    const view = new DataView(fixed.buffer);
    const [version, headLength, bodyLength, stateLength] = [8, 12, 16, 20].map((at) => view.getUint32(at, true)) as [
      number,
      number,
      number,
      number,
    ];
    // No more is read, or allocated, than the file has.
    const isWhole = size === fixedSize + headLength + bodyLength + stateLength;
    if (version !== formatVersion || headLength > maxHead || !isWhole) return undefined;
    const headBytes = await read(fixedSize, headLength);
    if (!headBytes || crc32(headBytes, crc32(fixed.subarray(8, 24))) !== view.getUint32(24, true)) return undefined;
    const head = parsed(headBytes);
    if (head === undefined) return undefined;
    if (part === "head") return { head, body: new Uint8Array(), state: new Uint8Array() };
    const rest = await read(fixedSize + headLength, bodyLength + stateLength);
    const body = rest?.slice(0, bodyLength);
    if (!rest || !body || crc32(body) !== view.getUint32(28, true)) return undefined;
    return { head, body, state: rest.subarray(bodyLength) };
  } finally {
    await file.close();
  }
}

function parsed(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
}
