// Other ways to look at a stored tensor: transposed, a part of it, another shape, several as one. Nothing is read or
// copied; where strides cannot say it, the view reads through a source that puts its pieces together when they are
// asked for.

import type { ByteSource } from "../byte-source.js";
import { bytesPerElement, type ElementType, elementCount, isElementType } from "../dtypes.js";
import { contiguousStrides, isContiguous, type StoredTensor } from "./checkpoint.js";
import { readTensorInto } from "./read-tensor.js";

/** The view with its last two dimensions exchanged. */
export function transposed(tensor: StoredTensor): StoredTensor {
  return { ...tensor, shape: withLastExchanged(tensor.shape), strides: withLastExchanged(tensor.strides) };
}

/** [..., a, b] to [..., b, a]. */
export function withLastExchanged(values: readonly number[]): number[] {
  return [...values.slice(0, -2), values.at(-1) as number, values.at(-2) as number];
}

/** Elements `start` to `end` along one dimension. */
export function sliced(tensor: StoredTensor, axis: number, start: number, end: number): StoredTensor {
  const shape = tensor.shape.with(axis, end - start);
  const offset = tensor.offset + start * (tensor.strides[axis] as number) * bytesPerElement[elementTypeOf(tensor)];
  return { ...tensor, shape, offset };
}

/** The same elements, row-major, in another shape with as many. */
export function reshaped(tensor: StoredTensor, shape: readonly number[]): StoredTensor {
  if (tensor.shape.join() === shape.join()) return tensor;
  const long = (dimension: number) => dimension !== 1;
  if (tensor.shape.filter(long).join() === shape.filter(long).join()) {
    // Only dimensions of 1 come or go: the strides of the others stay.
    const strides = tensor.strides.filter((_, i) => long(tensor.shape[i] as number));
    let next = 0;
    return { ...tensor, shape, strides: shape.map((d) => (long(d) ? (strides[next++] as number) : 1)) };
  }
  const inOrder = isContiguous(tensor) ? tensor : joined([tensor]);
  return { ...inOrder, shape, strides: contiguousStrides(shape) };
}

/** Tensors one after another along the first dimension; all others, and the types, are the same. */
export function joined(parts: readonly StoredTensor[]): StoredTensor {
  const [first] = parts as [StoredTensor];
  const rows = parts.reduce((sum, { shape }) => sum + (shape[0] as number), 0);
  const shape = [rows, ...first.shape.slice(1)];
  const { checksum: _, ...rest } = first;
  const name = parts.map((part) => part.name).join(" + ");
  const source = new JoinedSource(parts);
  return { ...rest, name, shape, strides: contiguousStrides(shape), source, offset: 0 };
}

function elementTypeOf({ name, dtype }: StoredTensor): ElementType {
  if (!isElementType(dtype)) throw new RangeError(`${name}: no part of blocks can be looked at`);
  return dtype;
}

/** The elements of several tensors, row-major, one after the other. */
class JoinedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #parts: readonly { readonly tensor: StoredTensor; readonly start: number; readonly size: number }[];

  constructor(tensors: readonly StoredTensor[]) {
    let start = 0;
    this.#parts = tensors.map((tensor) => {
      const size = elementCount(tensor.shape) * bytesPerElement[elementTypeOf(tensor)];
      start += size;
      return { tensor, start: start - size, size };
    });
    this.name = tensors[0]?.source.name ?? "";
    this.size = start;
  }

  async readInto(offset: number, target: Uint8Array): Promise<void> {
    for (const { tensor, start, size } of this.#parts) {
      const from = Math.max(offset, start);
      const to = Math.min(offset + target.byteLength, start + size);
      if (from >= to) continue;
      const piece = target.subarray(from - offset, to - offset);
      if (piece.byteLength === size) await readTensorInto(tensor, elementTypeOf(tensor), piece);
      else if (isContiguous(tensor)) await tensor.source.readInto(tensor.offset + from - start, piece);
      else {
        const whole = new Uint8Array(size);
        await readTensorInto(tensor, elementTypeOf(tensor), whole);
        piece.set(whole.subarray(from - start, to - start));
      }
    }
  }

  /** The files belong to the checkpoint. */
  async close(): Promise<void> {}
}
