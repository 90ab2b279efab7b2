// The tensors of a bound model as RWKV-LM writes them, whatever names and shapes they were read in.

import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { computed } from "../checkpoints/computed-views.js";
import { readFloat32 } from "../checkpoints/read-tensor.js";
import { elementCount } from "../dtypes.js";
import { newLayout } from "./tensor-layout.js";
import type { RecognisedModel } from "./versions.js";

/**
 * RWKV-LM's tensors by name. Those that are a weight of the graph as it is are views of what is stored, blocks included;
 * others are put together in float32 when they are read.
 */
export function officialTensorsOf({ definition, graph, size, tensors }: RecognisedModel): Map<string, StoredTensor> {
  const official = new Map<string, StoredTensor>();
  for (const { name, shape, parts } of newLayout(definition, graph, size)) {
    const stored = parts.map(({ weight }) => tensors.get(weight.name) as StoredTensor);
    const [only, weight] = [parts[0], stored[0]] as const;
    if (parts.length === 1 && only?.location.isWhole && weight?.shape.join() === shape.join()) {
      official.set(name, { ...weight, name });
      continue;
    }
    const source = (weight as StoredTensor).source;
    official.set(
      name,
      computed({ name, shape, source }, async () => {
        const elements = new Float32Array(elementCount(shape));
        for (const [i, { location, shape: own, start }] of parts.entries()) {
          const values = await readFloat32(stored[i] as StoredTensor);
          location.put(values.subarray(start, start + elementCount(own)), own, elements);
        }
        return elements;
      }),
    );
  }
  return official;
}
