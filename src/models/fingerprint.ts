// A number that distinguishes models, so that a saved state is not loaded into another model. It depends on the weights' values,
// not on how they are stored: the same for a .pth and its .safetensors, for float32 and bfloat16. Quantizing changes the values
// of matrices, but not the meaning of a state, so only weights that it leaves alone are looked at.

import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { readTensorInto } from "../checkpoints/read-tensor.js";
import { crc32 } from "../checksum.js";
import { elementCount, isElementType } from "../dtypes.js";
import type { BoundModel } from "./versions.js";

const sampled = 64;

/** CRC-32 over the first elements of every vector and of the first matrix, the embedding, as bfloat16, in the graph's order. */
export async function fingerprintOf(model: BoundModel): Promise<number> {
  const embedding = model.graph.weights.find(({ op }) => op === "matrix");
  const sampledWeights = model.graph.weights.filter((weight) => weight.op === "vector" || weight === embedding);
  const samples = await Promise.all(
    sampledWeights.map(async (weight) => {
      const row = firstElementsOf(model.tensors.get(weight.name) as StoredTensor);
      const bytes = new Uint8Array(elementCount(row.shape) * 2);
      await readTensorInto(row, "bf16", bytes);
      return bytes.subarray(0, 2 * sampled);
    }),
  );
  return samples.reduce((crc, bytes) => crc32(bytes, crc), 0);
}

/** The first elements of a vector or of a matrix's first row; all of that row where it is in blocks. */
function firstElementsOf(tensor: StoredTensor): StoredTensor {
  const width = tensor.shape.at(-1) ?? 1;
  if (!isElementType(tensor.dtype)) return { ...tensor, shape: [1, width], strides: [width, 1] };
  return { ...tensor, shape: [Math.min(width, sampled)], strides: [tensor.strides.at(-1) ?? 1] };
}
