// Compares the bytes that were read with the checksums in the file. Tensors that are mapped into memory are not read,
// so only `rwkv inspect` checks theirs.

import type { ByteSource } from "../byte-source.js";
import { crc32 } from "../checksum.js";
import { CheckpointError } from "../errors.js";
import { byteLengthOf, type ChecksummedRange, isContiguous, type StoredTensor } from "./checkpoint.js";

/** Computes the checksum of a tensor whose bytes are read in order. */
export interface RunningChecksum {
  /** Takes the next bytes of the tensor. */
  add(bytes: Uint8Array): void;
  /** Compares the checksum. @throws CheckpointError when the bytes are not those that were written */
  finish(): void;
}

/**
 * The checksum of a tensor that fills the whole range that its file has a checksum for; undefined for any other
 * tensor.
 */
export function runningChecksum(tensor: StoredTensor): RunningChecksum | undefined {
  return isContiguous(tensor) ? checksumOfRange(tensor, tensor.offset, byteLengthOf(tensor)) : undefined;
}

/** For bytes that a tensor is a view of; undefined where they are not all of what its file has a checksum of. */
export function checksumOfRange(tensor: StoredTensor, offset: number, size: number): RunningChecksum | undefined {
  const { checksum } = tensor;
  if (!checksum || checksum.size !== size || checksum.offset !== offset) return undefined;
  let crc = 0;
  return {
    add(bytes) {
      crc = crc32(bytes, crc);
    },
    finish() {
      if (crc === checksum.crc32) return;
      throw new CheckpointError(
        tensor.source.name,
        `tensor ${tensor.name}: its bytes do not match their checksum; the file was damaged when it was copied or downloaded`,
      );
    },
  };
}

/** A range with a checksum, and the tensors that lie in it. */
export interface TensorRange extends ChecksummedRange {
  readonly source: ByteSource;
  readonly tensors: readonly string[];
}

/** The distinct ranges with checksums in which tensors lie. */
export function checksummedRanges(tensors: Iterable<StoredTensor>): TensorRange[] {
  const ranges = new Map<ChecksummedRange, TensorRange & { tensors: string[] }>();
  for (const { name, source, checksum } of tensors) {
    if (!checksum) continue;
    const known = ranges.get(checksum);
    if (known) known.tensors.push(name);
    else ranges.set(checksum, { ...checksum, source, tensors: [name] });
  }
  return [...ranges.values()];
}

const pieceSize = 2 ** 20;

/**
 * Reads a range and says whether its bytes are those that were written.
 *
 * @param onRead called with the bytes of each piece
 */
export async function matchesChecksum(range: TensorRange, onRead?: (bytes: number) => void): Promise<boolean> {
  const piece = new Uint8Array(Math.min(pieceSize, range.size));
  let crc = 0;
  for (let at = 0; at < range.size; at += piece.length) {
    const part = piece.subarray(0, Math.min(piece.length, range.size - at));
    await range.source.readInto(range.offset + at, part);
    crc = crc32(part, crc);
    onRead?.(part.length);
  }
  return crc === range.crc32;
}
