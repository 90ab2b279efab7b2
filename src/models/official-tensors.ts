// Checkpoints of formats that rename and rearrange tensors, as RWKV-LM has them.

import type { Checkpoint } from "../checkpoints/checkpoint.js";
import { officialTensorsOfGgml } from "./ggml-tensors.js";
import { officialTensorsOfGguf } from "./gguf-tensors.js";

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
