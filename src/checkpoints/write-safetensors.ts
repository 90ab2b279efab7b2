// Writes safetensors: header first. Data start at a multiple of 64 bytes. Matrices in blocks come first, since their sizes are
// multiples of 64 too: so each starts at one, as suits vectors that wide when it is mapped. The others are in the given order.

import { writeFileAtomically } from "#platform/file-writer";
import { isBlockType } from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import { blockMetadata, blockStorageShape, safetensorsTypes } from "./safetensors.js";
import { type WritableTensor, writtenSize } from "./writer.js";

/**
 * Writes a safetensors file, by rename.
 *
 * @throws CheckpointError when it cannot be written or two tensors have one name
 */
export async function writeSafetensors(path: string, tensors: readonly WritableTensor[]): Promise<void> {
  const typeNames = new Map(Object.entries(safetensorsTypes).map(([name, dtype]) => [dtype, name]));
  const metadata: [string, string][] = [["format", "pt"]];
  const header: [string, unknown][] = [];
  const names = new Set<string>();
  const ordered = [
    ...tensors.filter(({ dtype }) => isBlockType(dtype)),
    ...tensors.filter(({ dtype }) => !isBlockType(dtype)),
  ];
  let end = 0;
  for (const tensor of ordered) {
    if (names.has(tensor.name)) throw new CheckpointError(path, `tensor ${tensor.name} is given twice`);
    names.add(tensor.name);
    const begin = end;
    end += writtenSize(tensor);
    const { name, dtype, shape } = tensor;
    const stored = isBlockType(dtype)
      ? { dtype: "U8", shape: blockStorageShape(dtype, shape) }
      : { dtype: typeNames.get(dtype), shape };
    if (isBlockType(dtype)) metadata.push(blockMetadata(name, dtype, shape));
    header.push([name, { ...stored, data_offsets: [begin, end] }]);
  }
  const entries = Object.fromEntries([["__metadata__", Object.fromEntries(metadata)], ...header]);
  const json = new TextEncoder().encode(JSON.stringify(entries));
  const padded = new Uint8Array(Math.ceil((8 + json.length) / 64) * 64).fill(0x20);
  padded.set(json, 8);
  new DataView(padded.buffer).setBigUint64(0, BigInt(padded.length - 8), true);

  await writeFileAtomically(path, async (file) => {
    await file.append(padded);
    for (const tensor of ordered) for await (const bytes of tensor.bytes()) await file.append(bytes);
  });
}
