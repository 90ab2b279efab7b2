// Reads a stored tensor's elements into memory in the wanted type, a few MiB at a time, so that loading takes no more
// memory than the weights themselves.

import { bytesPerElement, convertElements, type DType, elementCount } from "../dtypes.js";
import { byteLengthOf, contiguousStrides, isContiguous, type StoredTensor } from "./checkpoint.js";

const pieceSize = 2 ** 20;

/**
 * Reads all elements, row-major, converted to `dtype`.
 *
 * @param target exactly as many bytes as the elements take in `dtype`
 * @throws CheckpointError when the file ends early
 */
export async function readTensorInto(tensor: StoredTensor, dtype: DType, target: Uint8Array): Promise<void> {
  const expected = elementCount(tensor.shape) * bytesPerElement[dtype];
  if (target.byteLength !== expected) throw new RangeError(`target has ${target.byteLength} bytes, not ${expected}`);
  if (!isContiguous(tensor)) return gather(tensor, dtype, target);
  if (tensor.dtype === dtype) return tensor.source.readInto(tensor.offset, target);
  let at = 0;
  for await (const piece of tensorPieces(tensor, dtype)) {
    target.set(piece, at);
    at += piece.byteLength;
  }
}

/**
 * The elements in pieces of a few MiB, row-major, converted to `dtype`. A piece is valid until the next is asked for.
 * A tensor that does not lie in row-major order comes as one piece.
 */
export async function* tensorPieces(tensor: StoredTensor, dtype: DType): AsyncGenerator<Uint8Array, void, void> {
  if (!isContiguous(tensor)) {
    const whole = new Uint8Array(elementCount(tensor.shape) * bytesPerElement[dtype]);
    await gather(tensor, dtype, whole);
    yield whole;
    return;
  }
  const size = byteLengthOf(tensor);
  const scale = bytesPerElement[dtype] / bytesPerElement[tensor.dtype];
  const scratch = takeScratch();
  try {
    for (let at = 0; at < size; at += pieceSize) {
      const length = Math.min(pieceSize, size - at);
      const stored = scratch.stored.subarray(0, length);
      await tensor.source.readInto(tensor.offset + at, stored);
      const converted = scratch.converted.subarray(0, length * scale);
      if (tensor.dtype !== dtype) convertElements(stored, tensor.dtype, converted, dtype);
      yield tensor.dtype === dtype ? stored : converted;
    }
  } finally {
    spareScratch = scratch;
  }
}

interface Scratch {
  readonly stored: Uint8Array;
  /** Four times as large, for the widest conversion: 8 bits to 32. */
  readonly converted: Uint8Array;
}

/** One scratch is kept: hundreds of new ones would stay in memory until a garbage collection, beside the weights. */
let spareScratch: Scratch | undefined;

function takeScratch(): Scratch {
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
async function gather(tensor: StoredTensor, dtype: DType, target: Uint8Array): Promise<void> {
  if (elementCount(tensor.shape) === 0) return;
  const targetStrides = contiguousStrides(tensor.shape);
  const order = tensor.shape
    .map((size, i) => ({ size, stride: tensor.strides[i] as number, targetStride: targetStrides[i] as number }))
    .sort((a, b) => b.stride - a.stride);
  const from = bytesPerElement[tensor.dtype];
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
      convertElements(piece, tensor.dtype, converted, dtype);
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
