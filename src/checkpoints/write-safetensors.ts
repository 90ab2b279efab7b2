// Writes safetensors. The data start at a multiple of 64 bytes. Quantized matrices come first, since their sizes are
// multiples of 64 as well; so each of them starts at such a multiple, which suits vectors of that width when the file
// is mapped. The other tensors are in the given order.

import { writeFileAtomically } from "#platform/file-writer";
import { isBlockType, isElementType } from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import { byteLengthOf } from "./checkpoint.js";
import { blockMetadata, blockStorageShape, isOfFormat, maxHeaderSize, safetensorsTypes } from "./safetensors.js";
import { checkWritable, type WritableTensor, type WriteOptions, writtenBytes } from "./writer.js";

/**
 * Writes a safetensors file under a temporary name and renames it.
 *
 * @throws CheckpointError when the file cannot be written, or the bytes of a tensor do not match its type and shape;
 *   OptionError for wrong arguments
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly WritableTensor[],
  options: WriteOptions = {},
): Promise<void> {
  checkWritable(path, tensors);
  const typeNames = new Map(Object.entries(safetensorsTypes).map(([name, dtype]) => [dtype, name]));
  const given = Object.entries(options.metadata ?? {}).filter(([key]) => !isOfFormat(key));
  const metadata: Record<string, string> = { format: "pt", ...Object.fromEntries(given) };
  const header: [string, unknown][] = [];
  const ordered = [
    ...tensors.filter(({ dtype }) => isBlockType(dtype)),
    ...tensors.filter(({ dtype }) => !isBlockType(dtype)),
  ];
  let end = 0;
  for (const tensor of ordered) {
    const { name, dtype, shape } = tensor;
    if (name === "__metadata__")
      throw new CheckpointError(path, `tensor ${name}: this name is reserved in safetensors`);
    if (!isElementType(dtype) && !isBlockType(dtype)) {
      throw new CheckpointError(path, `tensor ${name}: a .safetensors file cannot hold ${dtype}; write .gguf`);
    }
    const begin = end;
    end += byteLengthOf(tensor);
    const stored = isBlockType(dtype)
      ? { dtype: "U8", shape: blockStorageShape(dtype, shape) }
      : { dtype: typeNames.get(dtype), shape };
    if (isBlockType(dtype)) Object.assign(metadata, blockMetadata(name, dtype, shape));
    header.push([name, { ...stored, data_offsets: [begin, end] }]);
  }
  const entries = Object.fromEntries([["__metadata__", metadata], ...header]);
  const json = new TextEncoder().encode(JSON.stringify(entries));
  const padded = new Uint8Array(Math.ceil((8 + json.length) / 64) * 64).fill(0x20);
  if (padded.length - 8 > maxHeaderSize) {
    throw new CheckpointError(
      path,
      `names and metadata take ${padded.length - 8} bytes; expected at most ${maxHeaderSize}`,
    );
  }
  padded.set(json, 8);
  new DataView(padded.buffer).setBigUint64(0, BigInt(padded.length - 8), true);

  await writeFileAtomically(path, async (file) => {
    await file.append(padded);
    for (const tensor of ordered) for await (const bytes of writtenBytes(path, tensor)) await file.append(bytes);
  });
}
