// The format in which states are kept outside of a server's memory: a head that says what it is, a body, and a saved state, each with a
// checksum, so that what was not written to its end, or was changed since, is known by its content. All numbers are little-endian.
//
//   0  "RWKVKEPT"           12  bytes of the head (u32)   20  bytes of the state (u32)    28  CRC-32 of the body (u32)
//   8  format version u32   16  bytes of the body (u32)   24  CRC-32 of the head (u32)    32  head (JSON), body, state
//
// The state is a saved state, with a checksum of its own. The checksum of the head is over the four numbers before it, too. Spaces behind the
// head let the state begin at a multiple of 4 bytes, so that its floats can be read where they are.

import { crc32 } from "../../checksum.js";

const magic = "RWKVKEPT";
const formatVersion = 1;
const fixedSize = 32;
const space = 0x20;

/** How many bytes have the whole head of anything that is kept: some names and numbers. */
export const headBytes = 4096;

/** What is kept. */
export interface Kept {
  /** Any JSON, of less than 4 KB. */
  readonly head: unknown;
  readonly body: Uint8Array;
  readonly state: Uint8Array;
}

/** What is kept, as parts that follow each other. */
export function encodeKept({ head, body, state }: Kept): Uint8Array[] {
  return [...encodeBeforeState({ head, body }, state.length), state];
}

/** What comes before a state of so many bytes, as parts that follow each other. */
export function encodeBeforeState({ head, body }: Omit<Kept, "state">, stateBytes: number): Uint8Array[] {
  const text = new TextEncoder().encode(JSON.stringify(head));
  const encoded = new Uint8Array(text.length + ((4 - ((text.length + body.length) % 4)) % 4)).fill(space);
  encoded.set(text);
  const fixed = new Uint8Array(fixedSize);
  const view = new DataView(fixed.buffer);
  fixed.set(new TextEncoder().encode(magic));
  [formatVersion, encoded.length, body.length, stateBytes].forEach((value, i) => {
    view.setUint32(8 + i * 4, value, true);
  });
  view.setUint32(24, crc32(encoded, crc32(fixed.subarray(8, 24))), true);
  view.setUint32(28, crc32(body), true);
  return [fixed, encoded, body];
}

/**
 * The head of what is kept.
 *
 * @param bytes the first bytes of it, `headBytes` of them or all
 * @param size how many there are in all
 * @returns undefined for bytes that are not of this format, or damaged
 */
export function decodeHead(bytes: Uint8Array, size: number): unknown {
  const lengths = lengthsOf(bytes, size);
  return lengths && decodedHead(bytes, lengths.head);
}

/**
 * Decodes what is kept. The state is not looked into.
 *
 * @returns undefined for bytes that are not of this format, or damaged
 */
export function decodeKept(bytes: Uint8Array): Kept | undefined {
  const lengths = lengthsOf(bytes, bytes.length);
  if (!lengths) return undefined;
  const head = decodedHead(bytes, lengths.head);
  const bodyAt = fixedSize + lengths.head;
  const body = new Uint8Array(bytes.subarray(bodyAt, bodyAt + lengths.body)); // a copy, aligned
  if (head === undefined || crc32(body) !== viewOf(bytes).getUint32(28, true)) return undefined;
  return { head, body, state: bytes.subarray(bodyAt + lengths.body) };
}

function lengthsOf(bytes: Uint8Array, size: number): { head: number; body: number; state: number } | undefined {
  const isOfFormat =
    bytes.length >= fixedSize && new TextDecoder("latin1").decode(bytes.subarray(0, magic.length)) === magic;
  if (!isOfFormat || viewOf(bytes).getUint32(8, true) !== formatVersion) return undefined;
  const [head, body, state] = [12, 16, 20].map((at) => viewOf(bytes).getUint32(at, true)) as [number, number, number];
  const isWhole = size === fixedSize + head + body + state && head <= headBytes - fixedSize;
  return isWhole ? { head, body, state } : undefined;
}

function decodedHead(bytes: Uint8Array, length: number): unknown {
  const encoded = bytes.subarray(fixedSize, fixedSize + length);
  const sum = encoded.length === length ? crc32(encoded, crc32(bytes.subarray(8, 24))) : undefined;
  if (sum !== viewOf(bytes).getUint32(24, true)) return undefined;
  try {
    return JSON.parse(new TextDecoder().decode(encoded));
  } catch {
    return undefined;
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
