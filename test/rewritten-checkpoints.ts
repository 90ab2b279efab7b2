// Writes checkpoints that differ from a sound one in what a test is about.

import { join } from "node:path";
import {
  type Checkpoint,
  openCheckpoint,
  readFloat32,
  type StoredTensor,
  type WritableTensor,
  type WriteOptions,
  writePth,
  writeSafetensors,
} from "rwkv";
import { tensorPieces } from "#rwkv/checkpoints/read-tensor";
import { bindModel } from "#rwkv/models/versions";
import { temporaryFolder } from "./fixture-files.js";

/** The tensors of an open checkpoint, to be written as they are or changed. */
export function writable(checkpoint: Pick<Checkpoint, "tensors">): WritableTensor[] {
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

/** The elements of a tensor of floats. */
export async function valuesOf(tensor: WritableTensor): Promise<Float32Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of tensor.bytes()) pieces.push(piece.slice());
  return new Float32Array(await new Blob(pieces as BlobPart[]).arrayBuffer());
}

/** The tensor with rows and columns exchanged. */
export async function transposed(tensor: WritableTensor): Promise<WritableTensor> {
  const [rows, columns] = tensor.shape as [number, number];
  const values = await valuesOf(tensor);
  return floats(
    tensor.name,
    [columns, rows],
    Array.from(values, (_, i) => values[(i % rows) * columns + Math.floor(i / rows)] as number),
  );
}

/** Writes the tensors of a checkpoint of floats, changed, to a file that is gone when the test ends. */
export async function changed(
  from: string,
  change: (tensors: WritableTensor[]) => WritableTensor[] | Promise<WritableTensor[]>,
): Promise<string> {
  const path = join(await temporaryFolder(), "model.safetensors");
  const checkpoint = await openCheckpoint(from);
  try {
    await writeSafetensors(path, await change(writable(checkpoint)));
  } finally {
    await checkpoint.close();
  }
  return path;
}

/** All weights of the model in a checkpoint, by their names in its graph. */
export async function weightsOf(path: string): Promise<Map<string, Float32Array>> {
  const checkpoint = await openCheckpoint(path);
  const { graph, tensors } = bindModel(checkpoint);
  const weights = new Map<string, Float32Array>();
  for (const { name } of graph.weights) weights.set(name, await readFloat32(tensors.get(name) as StoredTensor));
  await checkpoint.close();
  return weights;
}

/** Renames all tensors. */
export function renamed(rename: (name: string) => string): (tensors: WritableTensor[]) => WritableTensor[] {
  return (tensors) => tensors.map((tensor) => ({ ...tensor, name: rename(tensor.name) }));
}
