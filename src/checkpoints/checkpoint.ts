// What every checkpoint format is read into: a directory of named tensors whose elements stay in the file.

import type { ByteSource } from "../byte-source.js";
import { elementCount } from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import { type StorageType, storedSize } from "../quantization/storage-types.js";
import type { StoredVocabulary } from "../stored-vocabulary.js";

/** A run of a file's bytes whose CRC-32 the file tells: the storage of a .pth that one or several tensors are views of. */
export interface ChecksummedRange {
  readonly offset: number;
  readonly size: number;
  readonly crc32: number;
}

/** A tensor in a file: where its elements lie. Nothing has been read yet. */
export interface StoredTensor {
  readonly name: string;
  readonly dtype: StorageType;
  readonly shape: readonly number[];
  /** Distance between neighbours along each dimension, in elements. Matrices in blocks are always row-major. */
  readonly strides: readonly number[];
  readonly source: ByteSource;
  /** Position of the first element in the source, in bytes. */
  readonly offset: number;
  /** What its elements lie in, where the file tells a checksum of that. */
  readonly checksum?: ChecksummedRange;
}

/** What a file holds beside its tensors, by name; all of it texts, numbers as they are written. */
export type Metadata = Readonly<Record<string, string>>;

/** What one file holds. */
export interface Directory {
  readonly tensors: Map<string, StoredTensor>;
  readonly metadata: Metadata;
  /** The vocabulary, in formats that have a place for it. */
  readonly vocabulary?: StoredVocabulary;
}

/** Formats that can be read; "ggml" is rwkv.cpp's. */
export type CheckpointFormat = "pth" | "pth (legacy)" | "safetensors" | "gguf" | "ggml";

/** An open checkpoint: the directory of one file, or of all shards of an index. */
export interface Checkpoint {
  /** The path it was opened with. */
  readonly name: string;
  readonly format: CheckpointFormat;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /**
   * What the file says beside its tensors: __metadata__ of safetensors, entries of a .pth that are text or numbers, keys
   * of GGUF but for arrays.
   */
  readonly metadata: Metadata;
  /** The vocabulary in the file, if it has one. */
  readonly vocabulary?: StoredVocabulary;
  /** The parsed config.json of a model that is laid out as Hugging Face does. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Closes the files. Tensors can no longer be read; memory-mapped weights stay valid. */
  close(): Promise<void>;
}

const maxDimensions = 8;

/** Strides of a tensor that lies in row-major order without gaps, in elements. */
export function contiguousStrides(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = stride;
    stride *= shape[i] as number;
  }
  return strides;
}

/** Whether the elements lie in row-major order without gaps. */
export function isContiguous(tensor: StoredTensor): boolean {
  const expected = contiguousStrides(tensor.shape);
  return tensor.shape.every((dimension, i) => dimension === 1 || tensor.strides[i] === expected[i]);
}

/** Size of the elements in bytes, were they stored without gaps. */
export function byteLengthOf({
  dtype,
  shape,
}: {
  readonly dtype: StorageType;
  readonly shape: readonly number[];
}): number {
  return storedSize(dtype, shape);
}

/**
 * Checks dimensions that a file claims, before anything is computed from them.
 *
 * @throws CheckpointError for a dimension that is not a whole number >= 0, too many dimensions, or a product past 2^53
 */
export function checkShape(file: string, name: string, shape: readonly unknown[]): asserts shape is readonly number[] {
  if (shape.length > maxDimensions) {
    throw new CheckpointError(
      file,
      `tensor ${name}: expected at most ${maxDimensions} dimensions, found ${shape.length}`,
    );
  }
  for (const dimension of shape) {
    if (!Number.isSafeInteger(dimension) || (dimension as number) < 0) {
      throw new CheckpointError(file, `tensor ${name}: expected dimensions >= 0, found ${describeNumbers(shape)}`);
    }
  }
  if (!Number.isSafeInteger(elementCount(shape as number[]) * 8)) {
    throw new CheckpointError(
      file,
      `tensor ${name}: shape ${describeNumbers(shape)} has more elements than can be addressed`,
    );
  }
}

/** A list from a file for an error message; it may hold anything, so nothing in it is followed. */
export function describeNumbers(values: readonly unknown[]): string {
  const shown = values
    .slice(0, 8)
    .map((value) => (typeof value === "number" || typeof value === "bigint" ? `${value}` : typeof value));
  return `[${shown.join(", ")}${values.length > shown.length ? ", ..." : ""}]`;
}
