// The bytes of a tensor in the type that it is written in: as they are, converted, laid out anew, or quantized.

import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { blockPieces, describeClamped, describeOverflow, tensorPieces } from "../checkpoints/read-tensor.js";
import { type BlockType, isBlockType, isElementType, noOverflow } from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import { groupOutputs } from "../quantization/blocks.js";
import { hasOneScale, layoutOf } from "../quantization/quantize.js";
import {
  isQuantizedSuperBlock,
  type QuantizedSuperBlock,
  quantizeSuperBlocks,
} from "../quantization/quantize-super-blocks.js";
import { ggmlTypesOfGroups, rowsOfGroup } from "../quantization/rows-of-groups.js";
import { ggmlTypesOfSuperGroups, rowsOfSuperGroup } from "../quantization/rows-of-super-groups.js";
import { blockFormatOf, type StorageType } from "../quantization/storage-types.js";
import type { QuantizingMachine } from "./quantizing-machine.js";

/** A tensor to be written, under a name that need not be the one it was read under. */
export interface Output {
  readonly name: string;
  readonly tensor: StoredTensor;
  readonly dtype: StorageType;
}

/**
 * Yields the bytes of a tensor in pieces. A file outlives the warning that was printed when it was made, so values that
 * the type cannot hold are an error, not a warning as they are for `load`.
 *
 * @throws CheckpointError for such values, and where the tensor cannot be read
 */
export async function* convertedPieces(
  tensor: StoredTensor,
  dtype: StorageType,
  quantizing: QuantizingMachine,
): AsyncGenerator<Uint8Array, void, void> {
  const format = blockFormatOf(tensor.dtype);
  if (isElementType(dtype)) {
    const overflow = noOverflow();
    yield* tensorPieces(tensor, dtype, overflow);
    if (overflow.count === 0) return;
    throw new CheckpointError(tensor.source.name, describeOverflow(tensor, dtype, overflow));
  }
  if (tensor.dtype === dtype) yield* tensorPieces(tensor, dtype);
  else if (format?.repack?.to === dtype) yield* repackedPieces(tensor, dtype);
  else if (isBlockType(dtype)) yield await quantizing.blocksOf(tensor, dtype);
  else if (ggmlTypeWithNumbersOf(tensor.dtype) === dtype) yield* unpackedPieces(tensor);
  else if (isQuantizedSuperBlock(dtype)) yield* superBlockPieces(tensor, dtype);
  else {
    const own = blockFormatOf(dtype)?.repack?.to;
    if (own === undefined || ggmlTypeWithNumbersOf(own) !== dtype)
      throw new RangeError(`nothing is quantized to ${dtype}`);
    yield* quantizedPieces(tensor, own, quantizing);
  }
}

/** The type of ggml's with the same numbers as one that kernels read. */
export function ggmlTypeWithNumbersOf(dtype: StorageType): StorageType | undefined {
  if (!isBlockType(dtype)) return undefined;
  return hasOneScale(dtype) ? ggmlTypesOfGroups[dtype] : ggmlTypesOfSuperGroups[dtype];
}

/** Groups as kernels read them, of rows with the same numbers. */
async function* repackedPieces(tensor: StoredTensor, dtype: StorageType): AsyncGenerator<Uint8Array, void, void> {
  const inputs = tensor.shape[1] as number;
  const { groupSize, repack } = blockFormatOf(tensor.dtype) ?? {};
  const step = (groupSize?.(inputs) ?? 0) * groupOutputs;
  for await (const { groups } of blockPieces(tensor, groupOutputs)) {
    for (let at = 0; at < groups.length; at += step) {
      const group = new Uint8Array(blockFormatOf(dtype)?.groupSize(inputs) ?? 0);
      repack?.group(groups.subarray(at, at + step), inputs, group);
      yield group;
    }
  }
}

/** Rows of ggml's type with the numbers of one that kernels read. */
async function* unpackedPieces(tensor: StoredTensor): AsyncGenerator<Uint8Array, void, void> {
  const [own, inputs] = [tensor.dtype as BlockType, tensor.shape[1] as number];
  const size = layoutOf(own).groupSize(inputs);
  for await (const { groups, rows } of blockPieces(tensor, 1)) {
    for (let at = 0, row = 0; at < groups.length; at += size, row += groupOutputs) {
      yield unpackedRows(groups.subarray(at, at + size), inputs, own, Math.min(groupOutputs, rows - row));
    }
  }
}

function unpackedRows(group: Uint8Array, inputs: number, dtype: BlockType, rows: number): Uint8Array {
  return hasOneScale(dtype) ? rowsOfGroup(group, inputs, dtype, rows) : rowsOfSuperGroup(group, inputs, dtype, rows);
}

/** Rows of Q8_0 and Q4_0, which are quantized as groups first. */
async function* quantizedPieces(
  tensor: StoredTensor,
  own: BlockType,
  quantizing: QuantizingMachine,
): AsyncGenerator<Uint8Array, void, void> {
  const [outputs, inputs] = tensor.shape as [number, number];
  const size = layoutOf(own).groupSize(inputs);
  const groups = await quantizing.blocksOf(tensor, own);
  for (let at = 0, row = 0; at < groups.length; at += size, row += groupOutputs) {
    yield unpackedRows(groups.subarray(at, at + size), inputs, own, Math.min(groupOutputs, outputs - row));
  }
}

/** Rows of Q4_K, Q5_K and Q6_K, a row at a time. */
async function* superBlockPieces(
  tensor: StoredTensor,
  dtype: QuantizedSuperBlock,
): AsyncGenerator<Uint8Array, void, void> {
  const inputs = tensor.shape[1] as number;
  const row = new Float32Array(inputs);
  const bytes = new Uint8Array(row.buffer);
  let filled = 0;
  let clamped = 0;
  for await (const piece of tensorPieces(tensor, "f32")) {
    for (let at = 0; at < piece.length; ) {
      const part = piece.subarray(at, at + bytes.length - filled);
      bytes.set(part, filled);
      filled += part.length;
      at += part.length;
      if (filled < bytes.length) continue;
      filled = 0;
      const blocks = quantizeSuperBlocks(row, dtype);
      blockFormatOf(dtype)?.visitScales(blocks, inputs, (bits) => {
        if ((bits & 0x7fff) === 0x7bff) clamped++;
      });
      yield blocks;
    }
  }
  if (clamped > 0) throw new CheckpointError(tensor.source.name, describeClamped(tensor, dtype, clamped));
}
