// Tensors that were computed rather than read, so that whatever takes those of a file takes them, too.

import { bytesSource } from "../byte-source.js";
import { bytesPerElement, convertElements, type FloatType } from "../dtypes.js";
import { contiguousStrides, type StoredTensor } from "./checkpoint.js";

/** A tensor in memory, row-major. @param dtype what its values are rounded to */
export function storedTensor(
  name: string,
  shape: readonly number[],
  values: Float32Array,
  dtype: FloatType = "f32",
): StoredTensor {
  let bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  if (dtype !== "f32") {
    const rounded = new Uint8Array(values.length * bytesPerElement[dtype]);
    convertElements(bytes, "f32", rounded, dtype);
    bytes = rounded;
  }
  return { name, dtype, shape, strides: contiguousStrides(shape), source: bytesSource(name, bytes), offset: 0 };
}
