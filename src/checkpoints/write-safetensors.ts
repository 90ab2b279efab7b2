// Writes safetensors: header first, padded so that data starts at a multiple of 64 bytes, tensors in the given order.

import { CheckpointError } from "../errors.js";
import { safetensorsTypes } from "./safetensors.js";
import { type WritableTensor, writeFileAtomically, writtenSize } from "./writer.js";

/**
 * Writes a safetensors file, by rename.
 *
 * @throws CheckpointError when it cannot be written or two tensors have one name
 */
export async function writeSafetensors(path: string, tensors: readonly WritableTensor[]): Promise<void> {
  const typeNames = new Map(Object.entries(safetensorsTypes).map(([name, dtype]) => [dtype, name]));
  const header: [string, unknown][] = [["__metadata__", { format: "pt" }]];
  const names = new Set<string>();
  let end = 0;
  for (const tensor of tensors) {
    if (names.has(tensor.name)) throw new CheckpointError(path, `tensor ${tensor.name} is given twice`);
    names.add(tensor.name);
    const begin = end;
    end += writtenSize(tensor);
    header.push([tensor.name, { dtype: typeNames.get(tensor.dtype), shape: tensor.shape, data_offsets: [begin, end] }]);
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  const padded = new Uint8Array(Math.ceil((8 + json.length) / 64) * 64).fill(0x20);
  padded.set(json, 8);
  new DataView(padded.buffer).setBigUint64(0, BigInt(padded.length - 8), true);

  await writeFileAtomically(path, async (file) => {
    await file.append(padded);
    for (const tensor of tensors) for await (const bytes of tensor.bytes()) await file.append(bytes);
  });
}
