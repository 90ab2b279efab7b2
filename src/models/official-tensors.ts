// Checkpoints of formats that rename and rearrange tensors, as RWKV-LM has them.

import type { Checkpoint } from "../checkpoints/checkpoint.js";
import { officialTensorsOfGgml } from "./ggml-tensors.js";
import { ggufNameOf, officialTensorsOfGguf } from "./gguf-tensors.js";

/**
 * The same model under the names and in the shapes that RWKV-LM gives it, as views, in formats whose converters change
 * them; of any other format the checkpoint itself.
 *
 * @throws CheckpointError for a model that is not RWKV, or tensors that cannot be what their names say
 */
export function withOfficialTensors(checkpoint: Checkpoint): Checkpoint {
  if (checkpoint.format === "gguf") return officialTensorsOfGguf(checkpoint);
  return checkpoint.format === "ggml" ? officialTensorsOfGgml(checkpoint) : checkpoint;
}

/** The name that a tensor of RWKV-LM's has in such a file, where it is another. */
export function storedNameOf(official: string, { format, metadata }: Checkpoint): string | undefined {
  return format === "gguf" ? ggufNameOf(official, metadata) : undefined;
}
