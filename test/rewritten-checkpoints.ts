// Writes checkpoints that differ from a sound one in what a test is about.

import {
  type Checkpoint,
  openCheckpoint,
  type WritableTensor,
  type WriteOptions,
  writePth,
  writeSafetensors,
} from "rwkv";
import { tensorPieces } from "#rwkv/checkpoints/read-tensor";

/** The tensors of an open checkpoint, to be written as they are or changed. */
export function writable(checkpoint: Checkpoint): WritableTensor[] {
  return [...checkpoint.tensors.values()].map((tensor) => ({
    name: tensor.name,
    dtype: tensor.dtype,
    shape: tensor.shape,
    bytes: () => tensorPieces(tensor, tensor.dtype),
  }));
}

/** Writes the tensors of one checkpoint, changed, to another file. */
export async function rewrite(
  from: string,
  to: string,
  change: (tensors: WritableTensor[]) => WritableTensor[] = (tensors) => tensors,
  options: WriteOptions = {},
): Promise<string> {
  const checkpoint = await openCheckpoint(from);
  try {
    await (to.endsWith(".safetensors") ? writeSafetensors : writePth)(to, change(writable(checkpoint)), options);
  } finally {
    await checkpoint.close();
  }
  return to;
}

/** A small tensor of floats. */
export function floats(name: string, shape: readonly number[], values: readonly number[]): WritableTensor {
  return { name, dtype: "f32", shape, bytes: () => [new Uint8Array(new Float32Array(values).buffer)] };
}

/** Renames all tensors. */
export function renamed(rename: (name: string) => string): (tensors: WritableTensor[]) => WritableTensor[] {
  return (tensors) => tensors.map((tensor) => ({ ...tensor, name: rename(tensor.name) }));
}
