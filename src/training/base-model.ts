// The model that fine-tuning begins with: which one it is, so that a run is not resumed on top of another.

import { byteLengthOf, type StoredTensor } from "../checkpoints/checkpoint.js";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { crc32 } from "../checksum.js";
import { CheckpointError, TrainingError } from "../errors.js";
import type { ModelDefinition, ModelSize } from "../models/model-definition.js";
import { bindModel } from "../models/versions.js";

/** The number of places that are sampled in each tensor, and the bytes at each. */
const places = 8;
const sampleSize = 256;

/** The model that fine-tuning begins with. */
export interface BaseModel {
  readonly definition: ModelDefinition;
  readonly size: ModelSize;
  readonly fingerprint: number;
}

/**
 * Looks at a base model. Its fingerprint is a CRC-32 over what the model is computed with beside its weights, over
 * their names, types and shapes, and over a few bytes from many places of each. Unlike the fingerprint of saved
 * states it looks into every matrix and at the bytes as they are stored: merged low-rank additions change little
 * else.
 *
 * @throws CheckpointError
 */
export async function openBase(path: string): Promise<BaseModel> {
  const checkpoint = await openCheckpoint(path);
  try {
    const { definition, size, layout, metadata } = bindModel(checkpoint);
    let crc = crc32(new TextEncoder().encode(JSON.stringify(metadata)));
    for (const { tensor, parts } of layout) {
      const name = parts[0]?.weight.name;
      if (!tensor || name === undefined) continue;
      crc = crc32(new TextEncoder().encode(`${name} ${tensor.dtype} ${tensor.shape.join()}`), crc);
      for (const [offset, size] of samplesOf(tensor)) {
        const bytes = new Uint8Array(size);
        await tensor.source.readInto(offset, bytes);
        crc = crc32(bytes, crc);
      }
    }
    return { definition, size, fingerprint: crc };
  } finally {
    await checkpoint.close();
  }
}

function samplesOf(tensor: StoredTensor): [offset: number, size: number][] {
  const { offset, source } = tensor;
  const length = Math.min(byteLengthOf(tensor), source.size - offset);
  if (length <= places * sampleSize) return [[offset, length]];
  const last = length - sampleSize;
  return Array.from({ length: places }, (_, i) => [offset + Math.floor((i * last) / (places - 1)), sampleSize]);
}

/**
 * The base model of a run that is resumed, which must be the one that it was begun with.
 *
 * @param recorded null for runs that were begun before fingerprints were recorded
 * @throws TrainingError where it is another, or is not there
 */
export async function checkBase(path: string, recorded: number | null, folder: string): Promise<BaseModel> {
  const found = await openBase(path).catch((cause) => {
    if (!(cause instanceof CheckpointError)) throw cause;
    const message =
      `${cause.message}: this is the base model of the run in ${folder}; if it was moved, name its new path ` +
      "with from (--from)";
    throw new TrainingError(message, { cause });
  });
  if (recorded !== null && found.fingerprint !== recorded) {
    throw new TrainingError(
      `${path}: expected the base model that the run in ${folder} was started with, found another; name its path with from ` +
        "(--from)",
    );
  }
  return found;
}
