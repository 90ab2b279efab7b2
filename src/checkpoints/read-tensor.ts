// Reads a stored tensor's elements into memory in the wanted type, a few MiB at a time, so that loading takes no more
// memory than the weights themselves.

import {
  bytesPerElement,
  convertElements,
  type DType,
  type ElementType,
  elementCount,
  isBlockType,
} from "../dtypes.js";
import { dequantizeGroup, groupOutputs, groupSize } from "../quantization/blocks.js";
import { byteLengthOf, contiguousStrides, isContiguous, type StoredTensor } from "./checkpoint.js";

const pieceSize = 2 ** 20;

/**
 * Reads all elements, row-major, converted to `dtype`.
 *
 * @param target exactly as many bytes as the elements take in `dtype`
 * @throws CheckpointError when the file ends early
 */
export async function readTensorInto(tensor: StoredTensor, dtype: ElementType, target: Uint8Array): Promise<void> {
  const expected = elementCount(tensor.shape) * bytesPerElement[dtype];
  if (target.byteLength !== expected) throw new RangeError(`target has ${target.byteLength} bytes, not ${expected}`);
  if (!isBlockType(tensor.dtype) && !isContiguous(tensor)) return gather(tensor, tensor.dtype, dtype, target);
  if (tensor.dtype === dtype) return tensor.source.readInto(tensor.offset, target);
  let at = 0;
  for await (const piece of tensorPieces(tensor, dtype)) {
    target.set(piece, at);
    at += piece.byteLength;
  }
}

/**
 * The elements in pieces of a few MiB, row-major, converted to `dtype`. A piece is valid until the next is asked for.
 * A tensor that does not lie in row-major order comes as one piece. A matrix in blocks comes as it is stored, group by group,
 * where that is the type wanted; making blocks is a backend's work (quantizer.ts).
 */
export async function* tensorPieces(tensor: StoredTensor, dtype: DType): AsyncGenerator<Uint8Array, void, void> {
  const stored = tensor.dtype;
  if (isBlockType(stored) && stored === dtype) return yield* storedPieces(tensor, new Uint8Array(pieceSize));
  if (isBlockType(dtype)) throw new RangeError(`no conversion from ${stored} to ${dtype}`);
  if (isBlockType(stored)) return yield* dequantizedPieces(tensor, dtype);
  if (!isContiguous(tensor)) {
    const whole = new Uint8Array(elementCount(tensor.shape) * bytesPerElement[dtype]);
    await gather(tensor, stored, dtype, whole);
    yield whole;
    return;
  }
  const scratch = takeScratch(byteLengthOf(tensor));
  try {
    for await (const piece of storedPieces(tensor, scratch.stored)) {
      const size = (piece.length / bytesPerElement[stored]) * bytesPerElement[dtype];
      const converted = scratch.converted.subarray(0, size);
      if (stored !== dtype) convertElements(piece, stored, converted, dtype);
      yield stored === dtype ? piece : converted;
    }
  } finally {
    if (scratch.stored.length === pieceSize) spareScratch = scratch;
  }
}

/** The bytes of a tensor that lies in one piece, as they are. */
async function* storedPieces(tensor: StoredTensor, scratch: Uint8Array): AsyncGenerator<Uint8Array, void, void> {
  const size = byteLengthOf(tensor);
  for (let at = 0; at < size; at += scratch.length) {
    const piece = scratch.subarray(0, Math.min(scratch.length, size - at));
    await tensor.source.readInto(tensor.offset + at, piece);
    yield piece;
  }
}

/** A matrix in blocks, a group of rows at a time. */
async function* dequantizedPieces(tensor: StoredTensor, dtype: ElementType): AsyncGenerator<Uint8Array, void, void> {
  if (!isBlockType(tensor.dtype)) return;
  const [outputs, inputs] = tensor.shape as [number, number];
  const group = new Uint8Array(groupSize(tensor.dtype, inputs));
  for (let row = 0; row < outputs; row += groupOutputs) {
    await tensor.source.readInto(tensor.offset + (row / groupOutputs) * group.byteLength, group);
    const values = new Float32Array(Math.min(groupOutputs, outputs - row) * inputs);
    dequantizeGroup(group, inputs, tensor.dtype, values);
    const piece = new Uint8Array(values.length * bytesPerElement[dtype]);
    convertElements(new Uint8Array(values.buffer), "f32", piece, dtype);
    yield piece;
  }
}

interface Scratch {
  readonly stored: Uint8Array;
  /** Four times as large, for the widest conversion: 8 bits to 32. */
  readonly converted: Uint8Array;
}

/**
 * One scratch is kept: hundreds of new ones would stay in memory until a garbage collection, beside the weights. For the same
 * reason small tensors, which are read at the same time, get no more than they need.
 */
let spareScratch: Scratch | undefined;

function takeScratch(size: number): Scratch {
  if (size <= pieceSize / 16) return { stored: new Uint8Array(size), converted: new Uint8Array(4 * size) };
  const scratch = spareScratch ?? { stored: new Uint8Array(pieceSize), converted: new Uint8Array(4 * pieceSize) };
  spareScratch = undefined;
  return scratch;
}

/** Reads all elements as float32. */
export async function readFloat32(tensor: StoredTensor): Promise<Float32Array> {
  const values = new Float32Array(elementCount(tensor.shape));
  await readTensorInto(tensor, "f32", new Uint8Array(values.buffer));
  return values;
}

/**
 * Reads a strided view: walks its storage once, in the order in which it lies in the file, and scatters to the row-major
 * target. A transposed matrix is thus read in a few large pieces rather than element by element.
 */
async function gather(
  tensor: StoredTensor,
  stored: ElementType,
  dtype: ElementType,
  target: Uint8Array,
): Promise<void> {
  if (elementCount(tensor.shape) === 0) return;
  const targetStrides = contiguousStrides(tensor.shape);
  const order = tensor.shape
    .map((size, i) => ({ size, stride: tensor.strides[i] as number, targetStride: targetStrides[i] as number }))
    .sort((a, b) => b.stride - a.stride);
  const from = bytesPerElement[stored];
  const to = bytesPerElement[dtype];
  // The innermost dimensions that span at most one piece are read together.
  let inner = order.length;
  let span = 1;
  while (inner > 0) {
    const { size, stride } = order[inner - 1] as (typeof order)[number];
    const wider = span + (size - 1) * stride;
    if (wider * from > pieceSize) break;
    span = wider;
    inner--;
  }
  const piece = new Uint8Array(span * from);
  const converted = new Uint8Array(span * to);
  const values = new DataView(converted.buffer);
  const output = new DataView(target.buffer, target.byteOffset, target.byteLength);
  const walk = async (depth: number, source: number, destination: number): Promise<void> => {
    if (depth === inner) {
      await tensor.source.readInto(tensor.offset + source * from, piece);
      convertElements(piece, stored, converted, dtype);
      scatter(depth, 0, destination);
      return;
    }
    const { size, stride, targetStride } = order[depth] as (typeof order)[number];
    for (let i = 0; i < size; i++) await walk(depth + 1, source + i * stride, destination + i * targetStride);
  };
  const scatter = (depth: number, source: number, destination: number): void => {
    if (depth === order.length) {
      if (to === 8) output.setBigUint64(destination * 8, values.getBigUint64(source * 8));
      else if (to === 4) output.setUint32(destination * 4, values.getUint32(source * 4));
      else if (to === 2) output.setUint16(destination * 2, values.getUint16(source * 2));
      else output.setUint8(destination, values.getUint8(source));
      return;
    }
    const { size, stride, targetStride } = order[depth] as (typeof order)[number];
    for (let i = 0; i < size; i++) scatter(depth + 1, source + i * stride, destination + i * targetStride);
  };
  await walk(0, 0, 0);
}
