// PyTorch checkpoints in the zip format of torch.save (PyTorch 1.6 and later): <name>/data.pkl describes the tensors,
// and <name>/data/<key> holds each storage. Layout: torch/csrc/jit/docs/serialization.md in the PyTorch repository.
// Entries under <name>/extra are for anything else that a program wants to keep; torch.load skips them. Here
// extra/metadata.json holds what safetensors keep in __metadata__.

import { type ByteSource, readSoon } from "../byte-source.js";
import { crc32 } from "../checksum.js";
import { bytesPerElement } from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import type { ChecksummedRange, Directory, Metadata } from "./checkpoint.js";
import { readStateDict } from "./state-dict.js";
import { storageOf, torchGlobals } from "./torch-objects.js";
import { maxPickleSize, unpickle } from "./unpickler.js";
import { readZipDirectory, type ZipEntry } from "./zip-directory.js";

/** The name of the entry for metadata, inside the archive's folder. */
export const metadataEntry = "extra/metadata.json";
const maxMetadataSize = 2 ** 20;

/**
 * Reads the directory of a zip-format .pth.
 *
 * @throws CheckpointError
 */
export async function readPth(source: ByteSource): Promise<Directory> {
  const entries = await readZipDirectory(source);
  const pickleName = [...entries.keys()].find((name) => name === "data.pkl" || name.endsWith("/data.pkl"));
  if (pickleName === undefined) throw new CheckpointError(source.name, describeArchive([...entries.keys()]));
  const folder = pickleName.slice(0, -"data.pkl".length);
  if (entries.has(`${folder}constants.pkl`)) {
    throw new CheckpointError(
      source.name,
      "this is a TorchScript program (torch.jit.save), not a state dict; save the weights: torch.save(module.state_dict(), path)",
    );
  }
  await checkByteOrder(source, entries.get(`${folder}byteorder`));

  const pickle = await readPickle(source, storedEntry(source, entries.get(pickleName) as ZipEntry));
  const checksums = new Map<string, ChecksummedRange>(); // all tensors of a storage share one object
  const { value } = unpickle(source.name, pickle, {
    globals: torchGlobals(source.name),
    persistentLoad(id) {
      const storage = storageOf(source.name, id);
      const entry = entries.get(`${folder}data/${storage.key}`);
      const expected = storage.length * bytesPerElement[storage.dtype];
      const stored = entry && storedEntry(source, entry);
      if (!stored || stored.size < expected) {
        throw new CheckpointError(
          source.name,
          `storage ${storage.key}: expected an entry of ${expected} bytes, found ${stored ? `${stored.size}` : "none"}`,
        );
      }
      storage.offset = stored.offset;
      if (stored.crc32 !== 0) {
        storage.checksum = checksums.get(stored.name) ?? stored;
        checksums.set(stored.name, storage.checksum);
      }
      return storage;
    },
  });
  const { tensors, metadata } = readStateDict(source, value);
  return { tensors, metadata: { ...metadata, ...(await readMetadata(source, entries.get(folder + metadataEntry))) } };
}

/** Says what a zip archive without data.pkl is, judging by the names in it. */
function describeArchive(names: readonly string[]): string {
  const inside = names.find((name) => /\.(pth|pt|bin|safetensors|gguf)$/i.test(name));
  if (inside) return `this is a zip archive that contains ${inside.slice(0, 200)}; unpack it and use that file`;
  if (names.length > 0 && names.every((name) => name.endsWith(".npy")))
    return "these are NumPy arrays (.npz), not a checkpoint";
  return "this is a zip archive without data.pkl, so torch.save did not write it";
}

/** Returns the entry if it is stored. @throws CheckpointError when it is compressed or encrypted */
function storedEntry(source: ByteSource, entry: ZipEntry): ZipEntry {
  if (!entry.packed) return entry;
  throw new CheckpointError(
    source.name,
    `zip entry ${entry.name}: expected a stored entry as torch.save writes them, found ${entry.packed} one`,
  );
}

async function readMetadata(source: ByteSource, entry: ZipEntry | undefined): Promise<Metadata> {
  if (!entry) return {};
  if (entry.size > maxMetadataSize) {
    throw new CheckpointError(
      source.name,
      `${metadataEntry} has ${entry.size} bytes; expected at most ${maxMetadataSize}`,
    );
  }
  const { offset, size } = storedEntry(source, entry);
  const bytes = await readSoon(source, offset, size);
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return Object.fromEntries(Object.entries(value as object).filter(([, text]) => typeof text === "string"));
  } catch (cause) {
    throw new CheckpointError(source.name, `${metadataEntry} is not a JSON object`, { cause });
  }
}

async function readPickle(source: ByteSource, entry: ZipEntry): Promise<Uint8Array> {
  if (entry.size > maxPickleSize) {
    throw new CheckpointError(source.name, `data.pkl has ${entry.size} bytes; expected at most ${maxPickleSize}`);
  }
  const bytes = await readSoon(source, entry.offset, entry.size);
  if (entry.crc32 !== 0 && crc32(bytes) !== entry.crc32)
    throw new CheckpointError(source.name, "data.pkl is damaged (its checksum differs)");
  return bytes;
}

async function checkByteOrder(source: ByteSource, entry: ZipEntry | undefined): Promise<void> {
  if (!entry) return; // before PyTorch 2.0 there was no such entry, and files were little-endian
  const order = new TextDecoder().decode(await readSoon(source, entry.offset, Math.min(entry.size, 16)));
  if (order.trim() !== "little")
    throw new CheckpointError(source.name, `expected little-endian data, found "${order}"`);
}
