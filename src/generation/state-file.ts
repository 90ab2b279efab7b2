// The format of a saved state: a header that says which model it belongs to, the floats of the state, the logits that follow the
// last token where they are known, and a checksum, all little-endian.
//
//   0  "RWKVSTAT"          16  layout floats (u32)       28  tokens read (u64)
//   8  format version u32  20  last token, -1 none (i32) 36  state, then logits, float32
//  12  fingerprint u32     24  floats of logits (u32)    end CRC-32 of all before (u32)
//
// Version 1 is without logits, and what is written has it wherever there are none.

import { crc32 } from "../checksum.js";
import { StateError } from "../errors.js";

/** What a saved state begins with. */
export const savedStateMagic = "RWKVSTAT";
const formatVersion = 1;
const formatWithLogits = 2;
const headerSize = 36;
/** The most tokens that a state can have read: numbers up to there, and their sums, are exact. */
const maxPosition = 2n ** 48n;

/** What a state file holds. */
export interface SavedState {
  readonly values: Float32Array;
  /** The last token read, which the values do not contain yet; undefined before the first token. */
  readonly lastToken: number | undefined;
  /** The logits that follow the last token, where they are known: the values then contain that token. [vocabulary] */
  readonly logits: Float32Array | undefined;
  /** The number of tokens read, the last one included. */
  readonly position: number;
}

/** Bytes of a saved state of this many floats, with or without logits. */
export function savedStateSize(length: number, logits: number = 0): number {
  return headerSize + (length + logits) * 4 + 4;
}

/** Whether bytes begin as a saved state does. */
export function looksLikeSavedState(bytes: Uint8Array): boolean {
  return new TextDecoder("latin1").decode(bytes.subarray(0, savedStateMagic.length)) === savedStateMagic;
}

/** Encodes a state. The number of bytes depends on the model, and on whether there are logits, only. */
export function encodeState(state: SavedState, fingerprint: number): Uint8Array {
  const bytes = new Uint8Array(savedStateSize(state.values.length, state.logits?.length));
  encodeStateInto(bytes, state, fingerprint);
  return bytes;
}

/** The same where there is memory for it. @param bytes as many as `savedStateSize` says; all of them are written */
export function encodeStateInto(bytes: Uint8Array, state: SavedState, fingerprint: number): void {
  const { values, logits } = state;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  bytes.set(new TextEncoder().encode(savedStateMagic));
  view.setUint32(8, logits ? formatWithLogits : formatVersion, true);
  view.setUint32(12, fingerprint, true);
  view.setUint32(16, values.length, true);
  view.setInt32(20, state.lastToken ?? -1, true);
  view.setUint32(24, logits?.length ?? 0, true);
  view.setBigUint64(28, BigInt(state.position), true);
  bytes.set(bytesOf(values), headerSize);
  if (logits) bytes.set(bytesOf(logits), headerSize + values.length * 4);
  view.setUint32(bytes.length - 4, crc32(bytes.subarray(0, -4)), true);
}

/**
 * Decodes a saved state.
 *
 * @param areOwn whether the bytes are nobody else's: what is decoded then shares their memory, where they lie as floats do
 * @throws StateError when the bytes are not a state, are damaged, or belong to another format version or model
 */
export function decodeState(
  bytes: Uint8Array,
  fingerprint: number,
  { length, vocabulary }: { readonly length: number; readonly vocabulary: number },
  areOwn = false,
): SavedState {
  if (!(bytes instanceof Uint8Array)) throw new StateError("a saved state is a Uint8Array, as save() gives it");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < savedStateSize(0) || !looksLikeSavedState(bytes)) {
    throw new StateError("not a saved RWKV state (tuned states, a .pth, become one by model.readState)");
  }
  const version = view.getUint32(8, true);
  if (version !== formatVersion && version !== formatWithLogits)
    throw new StateError(`saved state: expected format ${formatVersion} or ${formatWithLogits}, found ${version}`);
  if (view.getUint32(bytes.length - 4, true) !== crc32(bytes.subarray(0, -4))) {
    throw new StateError("saved state is damaged (its checksum differs)");
  }
  const found = { fingerprint: view.getUint32(12, true), length: view.getUint32(16, true) };
  const logitCount = version === formatWithLogits ? vocabulary : 0;
  const size = savedStateSize(length, logitCount);
  if (found.length !== length || found.fingerprint !== fingerprint || bytes.length !== size) {
    throw new StateError(
      `saved state belongs to another model: expected ${length} floats of model ${hex(fingerprint)}, ` +
        `found ${found.length} of ${hex(found.fingerprint)}`,
    );
  }
  const lastToken = view.getInt32(20, true);
  if (lastToken < -1 || lastToken >= vocabulary)
    throw new StateError(`saved state: last token ${lastToken} does not exist`);
  const position = view.getBigUint64(28, true);
  if (position > maxPosition) throw new StateError(`saved state: ${position} tokens were read, more than there can be`);
  if (logitCount > 0 && lastToken >= 0)
    throw new StateError("saved state has both logits and a token that was not run");
  const floats = (from: number, count: number) => {
    const start = headerSize + from * 4;
    const at = bytes.byteOffset + start;
    if (areOwn && at % 4 === 0) return new Float32Array(bytes.buffer as ArrayBuffer, at, count);
    const copy = new Float32Array(count);
    bytesOf(copy).set(bytes.subarray(start, start + count * 4));
    return copy;
  };
  return {
    values: floats(0, length),
    lastToken: lastToken < 0 ? undefined : lastToken,
    logits: logitCount > 0 ? floats(length, logitCount) : undefined,
    position: Number(position),
  };
}

/** The bytes of floats, which are little-endian wherever kernels run. They share their memory. */
function bytesOf(floats: Float32Array): Uint8Array {
  return new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);
}

function hex(fingerprint: number): string {
  return fingerprint.toString(16).padStart(8, "0");
}
