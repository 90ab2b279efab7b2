// Writes GGUF, version 3, little-endian (gguf.ts says how it is laid out).

import { writeFileAtomically } from "#platform/file-writer";
import { isBlockType } from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import { byteLengthOf } from "./checkpoint.js";
import { ggufTypeNumber } from "./ggml-types.js";
import { defaultAlignment } from "./gguf.js";
import { checkWritable, type WritableTensor, writtenBytes } from "./writer.js";

/** The value of a key of the metadata, with its type in GGUF. */
export type GgufValue =
  | { readonly type: "uint32" | "float32"; readonly value: number }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "strings"; readonly value: readonly string[] }
  | { readonly type: "int32s"; readonly value: readonly number[] };

/** ggml's loader holds names to this, in bytes. */
const maxNameLength = 63;
const maxDimensions = 4;

/**
 * Writes a GGUF file under a temporary name and renames it.
 *
 * @param metadata values by key, `general.architecture` the first
 * @throws CheckpointError when the file cannot be written, GGUF cannot hold a tensor, or the bytes of one do not match its
 *   type and shape; OptionError for wrong arguments
 */
export async function writeGguf(
  path: string,
  tensors: readonly WritableTensor[],
  metadata: ReadonlyMap<string, GgufValue>,
): Promise<void> {
  checkWritable(path, tensors);
  const header = new FieldWriter();
  header.bytes(new TextEncoder().encode("GGUF"));
  header.uint32(3);
  header.uint64(tensors.length);
  header.uint64(metadata.size);
  for (const [key, value] of metadata) writeEntry(header, key, value);
  let offset = 0;
  for (const tensor of tensors) {
    checkHeld(path, tensor);
    header.text(tensor.name);
    header.uint32(tensor.shape.length);
    for (const dimension of tensor.shape.toReversed()) header.uint64(dimension);
    header.uint32(ggufTypeNumber(tensor.dtype));
    header.uint64(offset);
    offset += aligned(byteLengthOf(tensor));
  }
  await writeFileAtomically(path, async (file) => {
    const pad = async () => file.append(new Uint8Array(aligned(file.position) - file.position));
    await file.append(header.finish());
    await pad();
    for (const tensor of tensors) {
      for await (const bytes of writtenBytes(path, tensor)) await file.append(bytes);
      await pad();
    }
  });
}

function aligned(size: number): number {
  return Math.ceil(size / defaultAlignment) * defaultAlignment;
}

function checkHeld(path: string, { name, dtype, shape }: WritableTensor): void {
  if (new TextEncoder().encode(name).length > maxNameLength || shape.length > maxDimensions) {
    throw new CheckpointError(
      path,
      `tensor ${name}: GGUF has names of at most ${maxNameLength} bytes and ${maxDimensions} dimensions, found ${shape.length}`,
    );
  }
  if (isBlockType(dtype) || dtype === "bool" || dtype === "u8") {
    throw new CheckpointError(path, `tensor ${name}: a .gguf file cannot hold ${dtype}`);
  }
}

function writeEntry(header: FieldWriter, key: string, entry: GgufValue): void {
  header.text(key);
  switch (entry.type) {
    case "uint32":
      header.uint32(4);
      return header.uint32(entry.value);
    case "float32":
      header.uint32(6);
      return header.float32(entry.value);
    case "string":
      header.uint32(8);
      return header.text(entry.value);
    case "strings":
      header.uint32(9);
      header.uint32(8);
      header.uint64(entry.value.length);
      for (const text of entry.value) header.text(text);
      return;
    case "int32s":
      header.uint32(9);
      header.uint32(5);
      header.uint64(entry.value.length);
      for (const number of entry.value) header.uint32(number);
  }
}

/** Fields one after the other, little-endian, in an array that grows. */
class FieldWriter {
  #bytes = new Uint8Array(2 ** 16);
  #view = new DataView(this.#bytes.buffer);
  #size = 0;
  readonly #encoder = new TextEncoder();

  uint32(value: number): void {
    const at = this.#room(4);
    this.#view.setUint32(at, value, true);
  }

  uint64(value: number): void {
    const at = this.#room(8);
    this.#view.setBigUint64(at, BigInt(value), true);
  }

  float32(value: number): void {
    const at = this.#room(4);
    this.#view.setFloat32(at, value, true);
  }

  text(value: string): void {
    const bytes = this.#encoder.encode(value);
    this.uint64(bytes.length);
    this.bytes(bytes);
  }

  bytes(bytes: Uint8Array): void {
    const at = this.#room(bytes.length);
    this.#bytes.set(bytes, at);
  }

  finish(): Uint8Array {
    return this.#bytes.subarray(0, this.#size);
  }

  /** Makes room for a field. @returns where it begins */
  #room(size: number): number {
    const at = this.#size;
    this.#size += size;
    if (this.#size > this.#bytes.length) {
      const larger = new Uint8Array(2 * Math.max(this.#size, this.#bytes.length));
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }
}
