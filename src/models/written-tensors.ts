// Writes a model as it was read: the same tensors, names and shapes, with the values that its weights have now.

import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { describeOverflow, readFloat32, tensorPieces } from "../checkpoints/read-tensor.js";
import type { WritableTensor } from "../checkpoints/writer.js";
import {
  bytesPerElement,
  convertElements,
  elementCount,
  type FloatType,
  isElementType,
  isFloating,
  noOverflow,
  type Overflow,
} from "../dtypes.js";
import type { WeightNode } from "../graph/graph.js";
import type { LaidOutTensor, WeightPart } from "./tensor-layout.js";

/** What is written. */
export interface WrittenModel {
  readonly layout: readonly LaidOutTensor[];
  /** The type of whatever is floating. */
  readonly dtype: FloatType;
  /** A weight's values, row-major; undefined for one that is as it was stored. */
  valuesOf(weight: WeightNode): Float32Array | Promise<Float32Array> | undefined;
  /** Told of values that the type cannot hold, a line for each tensor. */
  onNotice?(message: string): void;
}

/** The tensors of a model, to be written. */
export function writtenTensors({ layout, dtype, valuesOf, onNotice }: WrittenModel): WritableTensor[] {
  return layout.map(({ name, shape, tensor, parts }): WritableTensor => {
    const isKept = tensor !== undefined && isElementType(tensor.dtype) && !isFloating(tensor.dtype);
    return {
      name,
      dtype: isKept ? tensor.dtype : dtype,
      shape,
      async *bytes() {
        if (isKept) return yield* tensorPieces(tensor, tensor.dtype);
        const overflow = noOverflow();
        const changed = await changedParts(parts, valuesOf);
        if (changed.length === 0 && tensor) yield* tensorPieces(tensor, dtype, overflow);
        else yield inType(await merged(shape, tensor, changed), dtype, overflow);
        if (overflow.count > 0) onNotice?.(describeOverflow({ name }, dtype, overflow));
      },
    };
  });
}

interface ChangedPart extends WeightPart {
  readonly values: Float32Array;
}

async function changedParts(parts: readonly WeightPart[], valuesOf: WrittenModel["valuesOf"]): Promise<ChangedPart[]> {
  const changed: ChangedPart[] = [];
  for (const part of parts) {
    const values = await valuesOf(part.weight);
    if (values) changed.push({ ...part, values: values.subarray(part.start, part.start + elementCount(part.shape)) });
  }
  return changed;
}

/** All of a tensor: what changed, and what lies beside that as it was, or zeros in a new model. */
async function merged(
  shape: readonly number[],
  tensor: StoredTensor | undefined,
  changed: readonly ChangedPart[],
): Promise<Float32Array> {
  const [only] = changed;
  if (changed.length === 1 && only?.location.isWhole) return only.values;
  const elements = tensor ? await readFloat32(tensor) : new Float32Array(elementCount(shape));
  for (const { location, values, shape: own } of changed) location.put(values, own, elements);
  return elements;
}

function inType(values: Float32Array, dtype: FloatType, overflow: Overflow): Uint8Array {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  if (dtype === "f32") return bytes;
  const converted = new Uint8Array(values.length * bytesPerElement[dtype]);
  convertElements(bytes, "f32", converted, dtype, overflow);
  return converted;
}
