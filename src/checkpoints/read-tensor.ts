// Reads a stored tensor's elements into memory in the wanted type, a few MiB at a time, so that loading takes no more
// memory than the weights themselves.

import {
  bytesPerElement,
  convertElements,
  type ElementType,
  elementCount,
  isElementType,
  isFloatType,
  largestValue,
  type Overflow,
} from "../dtypes.js";
import { blockFormatOf, type StorageType } from "../quantization/storage-types.js";
import { byteLengthOf, contiguousStrides, isContiguous, type StoredTensor } from "./checkpoint.js";
import { checksumOfRange, runningChecksum } from "./checksums.js";

const pieceSize = 2 ** 20;

/**
 * Reads all elements, row-major, converted to `dtype`.
 *
 * @param target exactly as many bytes as the elements take in `dtype`
 * @param overflow is told of finite values that are infinite in `dtype`
 * @throws CheckpointError when the file ends early, or the bytes do not match their checksum
 */
export async function readTensorInto(
  tensor: StoredTensor,
  dtype: ElementType,
  target: Uint8Array,
  overflow?: Overflow,
): Promise<void> {
  const expected = elementCount(tensor.shape) * bytesPerElement[dtype];
  if (target.byteLength !== expected) throw new RangeError(`target has ${target.byteLength} bytes, not ${expected}`);
  if (isElementType(tensor.dtype) && !isContiguous(tensor))
    return gatherAs(tensor, tensor.dtype, dtype, target, overflow);
  if (tensor.dtype === dtype) {
    await tensor.source.readInto(tensor.offset, target);
    const checksum = runningChecksum(tensor);
    checksum?.add(target);
    return checksum?.finish();
  }
  let at = 0;
  for await (const piece of tensorPieces(tensor, dtype, overflow)) {
    target.set(piece, at);
    at += piece.byteLength;
  }
}

/**
 * The elements in pieces of a few MiB, row-major, converted to `dtype`. A piece is valid until the next is asked for.
 * A tensor that does not lie in row-major order comes as one piece. A matrix in blocks comes as it is stored, group by group,
 * where that is the type wanted; making blocks is a backend's work.
 */
export async function* tensorPieces(
  tensor: StoredTensor,
  dtype: StorageType,
  overflow?: Overflow,
): AsyncGenerator<Uint8Array, void, void> {
  const stored = tensor.dtype;
  if (!isElementType(stored) && stored === dtype) return yield* storedPieces(tensor, new Uint8Array(pieceSize));
  if (!isElementType(dtype)) throw new RangeError(`no conversion from ${stored} to ${dtype}`);
  if (!isElementType(stored)) return yield* decodedPieces(tensor, dtype, overflow);
  if (!isContiguous(tensor)) {
    const whole = new Uint8Array(elementCount(tensor.shape) * bytesPerElement[dtype]);
    await gatherAs(tensor, stored, dtype, whole, overflow);
    yield whole;
    return;
  }
  const scratch = takeScratch(byteLengthOf(tensor));
  try {
    for await (const piece of storedPieces(tensor, scratch.stored)) {
      const size = (piece.length / bytesPerElement[stored]) * bytesPerElement[dtype];
      const converted = scratch.converted.subarray(0, size);
      if (stored !== dtype) convertElements(piece, stored, converted, dtype, overflow);
      yield stored === dtype ? piece : converted;
    }
  } finally {
    if (scratch.stored.length === pieceSize) spareScratch = scratch;
  }
}

/** The bytes of a tensor that lies in one piece, as they are. */
async function* storedPieces(tensor: StoredTensor, scratch: Uint8Array): AsyncGenerator<Uint8Array, void, void> {
  const size = byteLengthOf(tensor);
  const checksum = runningChecksum(tensor);
  for (let at = 0; at < size; at += scratch.length) {
    const piece = scratch.subarray(0, Math.min(scratch.length, size - at));
    await tensor.source.readInto(tensor.offset + at, piece);
    checksum?.add(piece);
    yield piece;
  }
  checksum?.finish();
}

/** A matrix in blocks as floats, some rows at a time. */
async function* decodedPieces(
  tensor: StoredTensor,
  dtype: ElementType,
  overflow?: Overflow,
): AsyncGenerator<Uint8Array, void, void> {
  const inputs = tensor.shape[1] as number;
  const format = blockFormatOf(tensor.dtype);
  for await (const { groups, rows } of blockPieces(tensor, 1)) {
    const values = new Float32Array(rows * inputs);
    const size = format?.groupSize(inputs) as number;
    const perGroup = (format?.groupOutputs as number) * inputs;
    for (let i = 0; i * size < groups.length; i++) {
      const target = values.subarray(i * perGroup, (i + 1) * perGroup);
      format?.decode(groups.subarray(i * size, (i + 1) * size), inputs, target);
    }
    if (dtype === "f32") yield new Uint8Array(values.buffer);
    else {
      const piece = new Uint8Array(values.length * bytesPerElement[dtype]);
      convertElements(new Uint8Array(values.buffer), "f32", piece, dtype, overflow);
      yield piece;
    }
  }
}

/** Whole groups of a matrix in blocks, and how many rows are in them. */
export interface BlockPiece {
  readonly groups: Uint8Array;
  readonly rows: number;
}

/**
 * A matrix in blocks as it is stored, whole groups at a time. A piece is valid until the next is asked for.
 *
 * @param multiple of rows, what each piece but the last has
 */
export async function* blockPieces(tensor: StoredTensor, multiple: number): AsyncGenerator<BlockPiece, void, void> {
  const format = blockFormatOf(tensor.dtype);
  if (!format) throw new RangeError(`${tensor.name}: expected blocks, found ${tensor.dtype}`);
  const [outputs, inputs] = tensor.shape as [number, number];
  const size = format.groupSize(inputs);
  const step = Math.max(1, multiple / format.groupOutputs);
  const most = Math.max(step, Math.floor(pieceSize / 4 / size / step) * step);
  const count = Math.ceil(outputs / format.groupOutputs);
  const scratch = new Uint8Array(Math.min(most, count) * size);
  for (let group = 0; group < count; group += most) {
    const groups = scratch.subarray(0, Math.min(most, count - group) * size);
    await tensor.source.readInto(tensor.offset + group * size, groups);
    const row = group * format.groupOutputs;
    yield { groups, rows: Math.min(outputs - row, (groups.length / size) * format.groupOutputs) };
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

/** A line about values that a type cannot hold. */
export function describeOverflow(
  tensor: Pick<StoredTensor, "name">,
  dtype: ElementType,
  { count, largest }: Overflow,
): string {
  const limit = isFloatType(dtype) ? `, whose largest is ${largestValue[dtype]}` : "";
  return (
    `tensor ${tensor.name}: ${count} value${count === 1 ? "" : "s"} up to ${largest} ` +
    `${count === 1 ? "becomes" : "become"} infinite in ${dtype}${limit}; ` +
    `${dtype === "f16" ? "bf16 or f32 hold" : "f32 holds"} them`
  );
}

/** A line about blocks whose weights are larger than the largest scale allows. */
export function describeClamped({ name }: Pick<StoredTensor, "name">, dtype: StorageType, count: number): string {
  return (
    `tensor ${name}: ${count} block${count === 1 ? " has a weight" : "s have weights"} too large for the scale of ${dtype}, ` +
    "which is at most 65504; bf16 or f32 hold them"
  );
}

/** Reads all elements as float32. */
export async function readFloat32(tensor: StoredTensor): Promise<Float32Array> {
  const values = new Float32Array(elementCount(tensor.shape));
  await readTensorInto(tensor, "f32", new Uint8Array(values.buffer));
  return values;
}

/** Reads a strided view, in another type where that is wanted. */
async function gatherAs(
  tensor: StoredTensor,
  stored: ElementType,
  dtype: ElementType,
  target: Uint8Array,
  overflow?: Overflow,
): Promise<void> {
  if (stored === dtype) return gather(tensor, stored, target);
  const elements = new Uint8Array(elementCount(tensor.shape) * bytesPerElement[stored]);
  await gather(tensor, stored, elements);
  convertElements(elements, stored, target, dtype, overflow);
}

/**
 * Walks the storage of a strided view once, in the order in which it lies in the file, and scatters to the row-major target.
 * A transposed matrix is thus read in a few large pieces rather than element by element.
 */
async function gather(tensor: StoredTensor, stored: ElementType, target: Uint8Array): Promise<void> {
  if (elementCount(tensor.shape) === 0) return;
  const targetStrides = contiguousStrides(tensor.shape);
  const order = tensor.shape
    .map((size, i) => ({ size, stride: tensor.strides[i] as number, targetStride: targetStrides[i] as number }))
    .sort((a, b) => b.stride - a.stride);
  const bytes = bytesPerElement[stored];
  // The innermost dimensions that span at most one piece are read together, with as many of the next one as fit.
  let inner = order.length;
  let span = 1;
  while (inner > 0) {
    const { size, stride } = order[inner - 1] as Dimension;
    const wider = span + (size - 1) * stride;
    if (wider * bytes > pieceSize) break;
    span = wider;
    inner--;
  }
  const pieced = order[inner - 1] ?? { size: 1, stride: 0, targetStride: 0 };
  const most =
    pieced.stride === 0 ? 1 : Math.min(pieced.size, 1 + Math.floor((pieceSize / bytes - span) / pieced.stride));
  const scratch = new Uint8Array((span + (most - 1) * pieced.stride) * bytes);
  const from = elementsOf(scratch, bytes);
  const isAligned = target.byteOffset % bytes === 0;
  const aligned = isAligned ? target : new Uint8Array(target.byteLength);
  const to = elementsOf(aligned, bytes);
  const readPiece = async (size: number, source: number, destination: number): Promise<void> => {
    const piece = scratch.subarray(0, (span + (size - 1) * pieced.stride) * bytes);
    const offset = tensor.offset + source * bytes;
    await tensor.source.readInto(offset, piece);
    const checksum = checksumOfRange(tensor, offset, piece.byteLength);
    checksum?.add(piece);
    checksum?.finish();
    scatter(from, to, [{ ...pieced, size }, ...order.slice(inner)], 0, destination);
  };
  const walk = async (depth: number, source: number, destination: number): Promise<void> => {
    const { size, stride, targetStride } = order[depth] as Dimension;
    const step = depth < inner - 1 ? 1 : most;
    for (let i = 0; i < size; i += step) {
      const at = source + i * stride;
      const goal = destination + i * targetStride;
      if (depth < inner - 1) await walk(depth + 1, at, goal);
      else await readPiece(Math.min(step, size - i), at, goal);
    }
  };
  await (inner === 0 ? readPiece(1, 0, 0) : walk(0, 0, 0));
  if (!isAligned) target.set(aligned);
}

/** One dimension of a view: how many elements, how far apart where they are stored and where they go. */
interface Dimension {
  readonly size: number;
  readonly stride: number;
  readonly targetStride: number;
}

/** Elements that are moved but not looked at. */
type Elements = BigUint64Array | Uint32Array | Uint16Array | Uint8Array;

function elementsOf({ buffer, byteOffset, byteLength }: Uint8Array, bytes: number): Elements {
  const make = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array, 8: BigUint64Array }[bytes] as typeof Uint8Array;
  return new make(buffer, byteOffset, byteLength / bytes);
}

/** Both sides of so many elements stay in the first cache while one of them is walked across. */
const tile = 32;

/** Copies a view whose elements have been read, the last two dimensions in squares. */
function scatter(from: Elements, to: Elements, order: readonly Dimension[], source: number, destination: number): void {
  const one = { size: 1, stride: 0, targetStride: 0 };
  const [outer, ...rest] = order;
  if (outer && rest.length > 1) {
    for (let i = 0; i < outer.size; i++) {
      scatter(from, to, rest, source + i * outer.stride, destination + i * outer.targetStride);
    }
    return;
  }
  const last = rest[0] ?? outer ?? one;
  const before = rest[0] ? (outer ?? one) : one;
  // The inner loop writes what lies together: rows of the target may be so far apart that a cache holds few of them.
  const [rows, columns] = before.targetStride < last.targetStride ? [last, before] : [before, last];
  for (let row = 0; row < rows.size; row += tile) {
    for (let column = 0; column < columns.size; column += tile) {
      const at = source + row * rows.stride + column * columns.stride;
      const goal = destination + row * rows.targetStride + column * columns.targetStride;
      const [height, width] = [Math.min(tile, rows.size - row), Math.min(tile, columns.size - column)];
      copySquare(from, to, { ...rows, size: height }, { ...columns, size: width }, at, goal);
    }
  }
}

function copySquare(
  from: Elements,
  to: Elements,
  rows: Dimension,
  columns: Dimension,
  source: number,
  destination: number,
): void {
  for (let row = 0; row < rows.size; row++) {
    let at = source + row * rows.stride;
    let goal = destination + row * rows.targetStride;
    for (let column = 0; column < columns.size; column++) {
      to[goal] = from[at] as number;
      at += columns.stride;
      goal += columns.targetStride;
    }
  }
}
