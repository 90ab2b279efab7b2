// PyTorch checkpoints, torch.save's zip format (PyTorch 1.6 and later): <name>/data.pkl describes the tensors,
// <name>/data/<key> holds each storage. Layout: torch/csrc/jit/docs/serialization.md in the PyTorch repository.

import { crc32 } from "../checksum.js";
import { bytesPerElement } from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import { type ByteSource, readRange } from "./byte-source.js";
import type { StoredTensor } from "./checkpoint.js";
import { stateDictTensors, storageOf, torchGlobals } from "./torch-objects.js";
import { maxPickleSize, unpickle } from "./unpickler.js";
import { readZipDirectory, type ZipEntry } from "./zip-directory.js";

/**
 * Reads the directory of a zip-format .pth.
 *
 * @throws CheckpointError
 */
export async function readPth(source: ByteSource): Promise<Map<string, StoredTensor>> {
  const entries = await readZipDirectory(source);
  const pickleName = [...entries.keys()].find((name) => name === "data.pkl" || name.endsWith("/data.pkl"));
  if (pickleName === undefined) {
    throw new CheckpointError(source.name, "a zip archive, but without data.pkl: not written by torch.save");
  }
  const folder = pickleName.slice(0, -"data.pkl".length);
  await checkByteOrder(source, entries.get(`${folder}byteorder`));

  const pickle = await readPickle(source, entries.get(pickleName) as ZipEntry);
  const { value } = unpickle(source.name, pickle, {
    globals: torchGlobals(source.name),
    persistentLoad(id) {
      const storage = storageOf(source.name, id);
      const entry = entries.get(`${folder}data/${storage.key}`);
      const expected = storage.length * bytesPerElement[storage.dtype];
      if (!entry || entry.size < expected) {
        throw new CheckpointError(
          source.name,
          `storage ${storage.key}: expected an entry of ${expected} bytes, found ${entry ? `${entry.size}` : "none"}`,
        );
      }
      storage.offset = entry.offset;
      return storage;
    },
  });
  return stateDictTensors(source, value);
}

async function readPickle(source: ByteSource, entry: ZipEntry): Promise<Uint8Array> {
  if (entry.size > maxPickleSize) {
    throw new CheckpointError(source.name, `data.pkl has ${entry.size} bytes; expected at most ${maxPickleSize}`);
  }
  const bytes = await readRange(source, entry.offset, entry.size);
  if (crc32(bytes) !== entry.crc32)
    throw new CheckpointError(source.name, "data.pkl is damaged (its checksum differs)");
  return bytes;
}

async function checkByteOrder(source: ByteSource, entry: ZipEntry | undefined): Promise<void> {
  if (!entry) return; // before PyTorch 2.0 there was no such entry, and files were little-endian
  const order = new TextDecoder().decode(await readRange(source, entry.offset, Math.min(entry.size, 16)));
  if (order.trim() !== "little")
    throw new CheckpointError(source.name, `expected little-endian data, found "${order}"`);
}
