// A checkpoint of RWKV-4 of any size with random weights, for tests to which the version does not matter.

import { syntheticCheckpoint } from "#rwkv/bench/synthetic-checkpoint";
import type { Checkpoint } from "#rwkv/checkpoints/checkpoint";
import type { FloatType } from "#rwkv/dtypes";
import type { ModelSize } from "#rwkv/models/model-definition";
import { rwkv4 } from "#rwkv/models/rwkv4";

export function syntheticRwkv4(size: ModelSize, dtype: FloatType): Checkpoint {
  return syntheticCheckpoint({ name: "synthetic", definition: rwkv4, size }, dtype);
}
