// A checkpoint of any size with random weights, made up as it is read: for measuring speed without a file.

import type { ByteSource } from "../byte-source.js";
import { type Checkpoint, contiguousStrides, type StoredTensor } from "../checkpoints/checkpoint.js";
import { bytesPerElement, convertElements, elementCount, type FloatType } from "../dtypes.js";
import type { ModelDefinition, ModelSize } from "../models/model-definition.js";
import { newLayout } from "../models/tensor-layout.js";
import { randomGenerator } from "../sampling/random.js";

const patternLength = 2 ** 18;

/** A version and a size, and what they are called. */
export interface SyntheticModel {
  readonly name: string;
  readonly definition: ModelDefinition;
  readonly size: ModelSize;
}

/** Such a model; small random weights, the same in every run. */
export function syntheticCheckpoint({ name, definition, size }: SyntheticModel, dtype: FloatType): Checkpoint {
  const random = randomGenerator(1);
  const values = Float32Array.from({ length: patternLength }, () => (random.uniform() - 0.5) * 0.1);
  const pattern = new Uint8Array(patternLength * bytesPerElement[dtype]);
  convertElements(new Uint8Array(values.buffer), "f32", pattern, dtype);

  const tensors = new Map<string, StoredTensor>();
  const graph = definition.build(size, { layerNormEpsilon: 1e-5 });
  for (const { name, shape } of newLayout(definition, graph, size)) {
    const source = repeatedPattern(name, pattern, elementCount(shape) * bytesPerElement[dtype]);
    tensors.set(name, { name, dtype, shape, strides: contiguousStrides(shape), source, offset: 0 });
  }
  return { name, format: "safetensors", tensors, metadata: {}, async close() {} };
}

function repeatedPattern(name: string, pattern: Uint8Array, size: number): ByteSource {
  return {
    name,
    size,
    async readInto(offset, target) {
      for (let at = 0; at < target.byteLength; ) {
        const start = (offset + at) % pattern.byteLength;
        const piece = pattern.subarray(start, start + target.byteLength - at);
        target.set(piece, at);
        at += piece.byteLength;
      }
    },
    async close() {},
  };
}
