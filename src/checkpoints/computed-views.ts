// Views of stored tensors whose elements are functions of what the file has: floats of a matrix in blocks, a function of
// each element, a multiple by a power of two. What is computed is computed when it is first read.

import type { ByteSource } from "../byte-source.js";
import {
  bfloat16Bits,
  bfloat16Value,
  bytesPerElement,
  elementCount,
  float16Bits,
  float16Value,
  isElementType,
} from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import { blockFormatOf } from "../quantization/storage-types.js";
import { contiguousStrides, type StoredTensor } from "./checkpoint.js";
import { readFloat32 } from "./read-tensor.js";

/** The same elements one by one, as float32 where they are in blocks, so that other views can be made of them. */
export function inElements(tensor: StoredTensor): StoredTensor {
  return isElementType(tensor.dtype) ? tensor : computed(tensor, () => readFloat32(tensor));
}

/** A function of each element, in float32. */
export function mapped(tensor: StoredTensor, change: (value: number) => number): StoredTensor {
  return computed(tensor, async () => (await readFloat32(tensor)).map(change));
}

/** A float32 tensor of the name and shape of another. */
export function computed(
  { name, shape, source }: Pick<StoredTensor, "name" | "shape" | "source">,
  values: () => Promise<Float32Array>,
): StoredTensor {
  const size = 4 * elementCount(shape);
  let bytes: Promise<Uint8Array> | undefined;
  const ofValues: ByteSource = {
    name: source.name,
    size,
    async readInto(offset, target) {
      bytes ??= values().then(({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength));
      target.set((await bytes).subarray(offset, offset + target.byteLength));
    },
    async close() {}, // the files belong to the checkpoint
  };
  return { name, dtype: "f32", shape, strides: contiguousStrides(shape), source: ofValues, offset: 0 };
}

/**
 * Each element times 2^exponent, in the same type, which is exact as far as the type reaches. Of blocks the scales are
 * multiplied.
 */
export function scaledByPowerOfTwo(tensor: StoredTensor, exponent: number): StoredTensor {
  if (exponent === 0) return tensor;
  const { checksum: _, ...rest } = tensor;
  return { ...rest, source: new ScaledSource(tensor, 2 ** exponent) };
}

/** A tensor's part of a file, with all floating point numbers in it multiplied. */
class ScaledSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #tensor: StoredTensor;
  /** Bytes of what repeats, an element or a block, and the floating point numbers in it. */
  readonly #unit: number;
  readonly #scale: (unit: DataView, at: number) => void;

  constructor(tensor: StoredTensor, factor: number) {
    this.#tensor = tensor;
    this.name = tensor.source.name;
    this.size = tensor.source.size;
    const half = (view: DataView, at: number, value: (bits: number) => number, bits: (value: number) => number) =>
      view.setUint16(at, bits(value(view.getUint16(at, true)) * factor), true);
    const { dtype, name } = tensor;
    if (isElementType(dtype)) {
      this.#unit = bytesPerElement[dtype];
      if (dtype === "f16") this.#scale = (view, at) => half(view, at, float16Value, float16Bits);
      else if (dtype === "bf16") this.#scale = (view, at) => half(view, at, bfloat16Value, bfloat16Bits);
      else if (dtype === "f32") {
        this.#scale = (view, at) => view.setFloat32(at, view.getFloat32(at, true) * factor, true);
      } else throw new CheckpointError(this.name, `tensor ${name}: expected floating point, found ${dtype}`);
    } else {
      const block = blockFormatOf(dtype)?.block;
      if (!block) throw new RangeError(`tensor ${name}: ${dtype} cannot be multiplied`);
      const { bytes, scales } = block;
      this.#unit = bytes;
      this.#scale = (view, at) => {
        for (const scale of scales) half(view, at + scale, float16Value, float16Bits);
      };
    }
  }

  async readInto(offset: number, target: Uint8Array): Promise<void> {
    // Whole units around the range, which begins anywhere.
    const from = offset - ((offset - this.#tensor.offset) % this.#unit);
    const count = Math.ceil((offset + target.byteLength - from) / this.#unit);
    const isWhole = from === offset && count * this.#unit === target.byteLength;
    const units = isWhole ? target : new Uint8Array(count * this.#unit);
    await this.#tensor.source.readInto(from, units);
    const view = new DataView(units.buffer, units.byteOffset, units.byteLength);
    for (let i = 0; i < count; i++) this.#scale(view, i * this.#unit);
    if (!isWhole) target.set(units.subarray(offset - from, offset - from + target.byteLength));
  }

  async close(): Promise<void> {}
}
