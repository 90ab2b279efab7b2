// The part that checkpoint writers share: tensors that yield their bytes in pieces, and checks that the bytes match
// type and shape, so that a caller's mistake is an error rather than a damaged file.

import { bytesPerElement, isElementType } from "../dtypes.js";
import { CheckpointError, OptionError } from "../errors.js";
import { blockFormats, type StorageType } from "../quantization/storage-types.js";
import { byteLengthOf, checkShape, type Metadata } from "./checkpoint.js";

/** A tensor to be written. */
export interface WritableTensor {
  readonly name: string;
  readonly dtype: StorageType;
  readonly shape: readonly number[];
  /** Yields the elements in pieces of any size: row-major, little-endian; a quantized matrix group by group. */
  bytes(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** Options of the writers. */
export interface WriteOptions {
  /** Texts to store beside the tensors, such as the metadata of a checkpoint that was read. */
  readonly metadata?: Metadata;
}

/**
 * Checks names, types and shapes before anything is written.
 *
 * @throws CheckpointError for a tensor that cannot be written; OptionError for wrong arguments
 */
export function checkWritable(path: string, tensors: readonly WritableTensor[]): void {
  if (typeof path !== "string" || path === "") throw new OptionError("path", path, "the path of a file to write");
  if (!Array.isArray(tensors)) throw new OptionError("tensors", tensors, "an array of tensors");
  const names = new Set<string>();
  for (const { name, dtype, shape, bytes } of tensors) {
    if (typeof name !== "string") {
      throw new CheckpointError(
        path,
        `expected every tensor to have a name, found one whose name is of type ${typeof name}`,
      );
    }
    if (names.has(name)) throw new CheckpointError(path, `two tensors have the same name, ${name}`);
    names.add(name);
    if (!isElementType(dtype) && !blockFormats.has(dtype)) {
      throw new CheckpointError(
        path,
        `tensor ${name}: expected an element type of ${Object.keys(bytesPerElement).join(", ")}, found ${String(dtype)}`,
      );
    }
    if (!Array.isArray(shape)) {
      throw new CheckpointError(path, `tensor ${name}: expected an array of dimensions, found ${typeof shape}`);
    }
    checkShape(path, name, shape);
    if (typeof bytes !== "function") {
      throw new CheckpointError(path, `tensor ${name}: expected a function bytes, found ${typeof bytes}`);
    }
    if (!isElementType(dtype) && shape.length !== 2) {
      throw new CheckpointError(
        path,
        `tensor ${name}: expected a matrix for ${dtype}, found ${shape.length} dimensions`,
      );
    }
  }
}

/**
 * Yields the bytes of a tensor, and checks that there are as many as its type and shape need.
 *
 * @throws CheckpointError when there are more or fewer bytes, or a piece is not a typed array
 */
export async function* writtenBytes(path: string, tensor: WritableTensor): AsyncGenerator<Uint8Array, void, void> {
  const expected = byteLengthOf(tensor);
  let written = 0;
  const fail = (found: string) => {
    const shape = `${tensor.dtype} [${tensor.shape.join(", ")}]`;
    return new CheckpointError(path, `tensor ${tensor.name}: expected ${expected} bytes for ${shape}, found ${found}`);
  };
  for await (const piece of tensor.bytes()) {
    if (!ArrayBuffer.isView(piece)) throw fail("a piece that is not a typed array");
    written += piece.byteLength;
    if (written > expected) throw fail(`${written} or more`);
    yield new Uint8Array(piece.buffer, piece.byteOffset, piece.byteLength);
  }
  if (written !== expected) throw fail(String(written));
}
