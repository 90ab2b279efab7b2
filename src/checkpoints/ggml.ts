// The format of rwkv.cpp (.bin): six numbers, then tensor after tensor to the end of the file, each with its number of
// dimensions, the length of its name, its type, its dimensions (the fastest first), its name and its data; nothing is
// aligned or counted. Format: https://github.com/RWKV/rwkv.cpp/blob/master/docs/FILE_FORMAT.md

import type { ByteSource } from "../byte-source.js";
import { CheckpointError } from "../errors.js";
import { byteLengthOf, checkShape, contiguousStrides, type Directory, type StoredTensor } from "./checkpoint.js";
import { ggmlTypeOf, rwkvCppTypes } from "./ggml-types.js";
import { SequentialReader } from "./sequential-reader.js";

const magic = [0x66, 0x6d, 0x67, 0x67]; // "ggmf" as an integer
/** Blocks that are read here came with 101. */
const versions = [100, 101];
const maxTensors = 20_000;
const maxNameLength = 1024;
const maxDimensions = 3;
const maxHeaderSize = 32 * 2 ** 20;
/** Headers lie between the data, so little is read ahead. */
const pieceSize = 256;

/** Whether the file starts as one of rwkv.cpp's does, whose magic number is an older one of llama.cpp's, too. */
export function looksLikeGgml(start: Uint8Array): boolean {
  return magic.every((byte, i) => start[i] === byte) && versions.includes(start[4] as number);
}

/**
 * Reads the directory of a file of rwkv.cpp.
 *
 * @throws CheckpointError
 */
export async function readGgml(source: ByteSource): Promise<Directory> {
  const reader = new SequentialReader(source, maxHeaderSize, pieceSize, pieceSize);
  reader.skip(magic.length);
  const version = await reader.uint32();
  if (!versions.includes(version)) {
    throw new CheckpointError(source.name, `rwkv.cpp: expected version ${versions.join(" or ")}, found ${version}`);
  }
  const claims = { vocabulary: await reader.uint32(), width: await reader.uint32(), layers: await reader.uint32() };
  reader.skip(4); // the type of most matrices, which each tensor says itself
  const tensors = new Map<string, StoredTensor>();
  while (reader.left > 0) {
    if (tensors.size === maxTensors) throw new CheckpointError(source.name, `expected at most ${maxTensors} tensors`);
    const tensor = await readTensor(source, reader, tensors.size);
    if (tensors.has(tensor.name)) throw new CheckpointError(source.name, `there are two tensors ${tensor.name}`);
    tensors.set(tensor.name, tensor);
  }
  checkClaims(source, claims, tensors);
  return { tensors, metadata: {} };
}

async function readTensor(source: ByteSource, reader: SequentialReader, index: number): Promise<StoredTensor> {
  const dimensions = await reader.uint32();
  const nameLength = await reader.uint32();
  const type = await reader.uint32();
  if (dimensions < 1 || dimensions > maxDimensions) {
    throw new CheckpointError(
      source.name,
      `tensor ${index}: expected 1 to ${maxDimensions} dimensions, found ${dimensions} (truncated or damaged)`,
    );
  }
  const shape: number[] = [];
  for (let i = 0; i < dimensions; i++) shape.unshift(await reader.uint32());
  const name = await reader.text(nameLength, maxNameLength, `name of tensor ${index}`);
  checkShape(source.name, name, shape);
  const dtype = ggmlTypeOf(source.name, name, rwkvCppTypes, type, shape);
  const offset = reader.position;
  const size = byteLengthOf({ dtype, shape });
  if (size > reader.left) {
    throw new CheckpointError(
      source.name,
      `tensor ${name}: expected ${size} bytes at offset ${offset}, but ${reader.left} are left (truncated or damaged)`,
    );
  }
  reader.skip(size);
  return { name, dtype, shape, strides: contiguousStrides(shape), source, offset };
}

/** Without a count of tensors, a file that was cut between two of them is found out by what its header says of them. */
function checkClaims(
  source: ByteSource,
  { vocabulary, width, layers }: { vocabulary: number; width: number; layers: number },
  tensors: ReadonlyMap<string, StoredTensor>,
): void {
  const ends = [...tensors.values()].filter(({ shape }) => shape.join() === [vocabulary, width].join());
  const found = new Set([...tensors.keys()].flatMap((name) => /^blocks\.(\d+)\./.exec(name)?.[1] ?? [])).size;
  if (ends.length >= 2 && found === layers) return;
  throw new CheckpointError(
    source.name,
    `expected an embedding, ${layers} layers and a head [${vocabulary}, ${width}], found ${ends.length} of such a shape ` +
      `and ${found} of the layers among ${tensors.size} tensors (truncated or damaged)`,
  );
}
