// A saved state with its values in float16, half as large, for stores that states go to and come from over a network. It is a saved
// state (state-file.ts) in all else: the same header under a name of its own, the logits in float32, a checksum. Values are rounded, so
// what goes on from it is not what would have gone on from the state: docs/scale.md has how far apart the logits are.

import { crc32 } from "../checksum.js";
import { convertElements, noOverflow } from "../dtypes.js";
import { StateError } from "../errors.js";
import { looksLikeSavedState, savedStateMagic } from "./state-file.js";

const halfMagic = "RWKVHALF";
const headerSize = 36;
/** Where a header has the numbers of floats: of the state, and of the logits. */
const lengthAt = 16;
const logitsAt = 24;

/**
 * Rounds the values of a saved state to float16.
 *
 * @param saved bytes of a saved state
 * @returns undefined where a value is larger than float16 can hold
 */
export function toHalfState(saved: Uint8Array): Uint8Array | undefined {
  const view = new DataView(saved.buffer, saved.byteOffset, saved.byteLength);
  const length = view.getUint32(lengthAt, true);
  const logits = saved.subarray(headerSize + length * 4, -4);
  const half = new Uint8Array(headerSize + length * 2 + logits.length + 4);
  half.set(saved.subarray(0, headerSize));
  half.set(new TextEncoder().encode(halfMagic));
  const overflow = noOverflow();
  const values = half.subarray(headerSize, headerSize + length * 2);
  convertElements(saved.subarray(headerSize, headerSize + length * 4), "f32", values, "f16", overflow);
  if (overflow.count > 0) return undefined;
  half.set(logits, headerSize + length * 2);
  new DataView(half.buffer).setUint32(half.length - 4, crc32(half.subarray(0, -4)), true);
  return half;
}

/**
 * The saved state with the rounded values in float32.
 *
 * @param half bytes as `toHalfState` gives them; those of a saved state are given back as they are
 * @throws StateError when the bytes are neither, or damaged
 */
export function fromHalfState(half: Uint8Array): Uint8Array {
  if (looksLikeSavedState(half)) return half;
  const view = new DataView(half.buffer, half.byteOffset, half.byteLength);
  const isHalf = new TextDecoder("latin1").decode(half.subarray(0, halfMagic.length)) === halfMagic;
  if (!isHalf || half.length < headerSize + 4) throw new StateError("not a state in float16");
  const [length, logits] = [lengthAt, logitsAt].map((at) => view.getUint32(at, true)) as [number, number];
  const isWhole = half.length === headerSize + length * 2 + logits * 4 + 4;
  if (!isWhole || view.getUint32(half.length - 4, true) !== crc32(half.subarray(0, -4))) {
    throw new StateError("a state in float16 is damaged (its checksum differs)");
  }
  const saved = new Uint8Array(headerSize + (length + logits) * 4 + 4);
  saved.set(half.subarray(0, headerSize));
  saved.set(new TextEncoder().encode(savedStateMagic));
  const values = half.subarray(headerSize, headerSize + length * 2);
  convertElements(values, "f16", saved.subarray(headerSize, headerSize + length * 4), "f32");
  saved.set(half.subarray(headerSize + length * 2, -4), headerSize + length * 4);
  new DataView(saved.buffer).setUint32(saved.length - 4, crc32(saved.subarray(0, -4)), true);
  return saved;
}
