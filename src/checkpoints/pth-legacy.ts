// PyTorch checkpoints from before 1.6. A file consists of a magic number, a protocol number, facts about the system
// that wrote it, the pickled object and the list of storage keys, each a pickle of its own, and then every storage as
// an element count and its elements. Source: torch/serialization.py, _legacy_save and _legacy_load.

import { type ByteSource, readRange } from "../byte-source.js";
import { bytesPerElement } from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import type { Directory } from "./checkpoint.js";
import { readStateDict } from "./state-dict.js";
import { type Storage, storageOf, torchGlobals } from "./torch-objects.js";
import { maxPickleSize, PickleTruncated, type PickleValue, type PickleVocabulary, unpickle } from "./unpickler.js";

/** The pickle of the number 0x1950a86a20f9469cfc6c, which starts every legacy file. */
const magic = [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e];
const protocolVersion = 1001;
const firstWindow = 64 * 2 ** 10;

/** Whether the file starts as a legacy torch.save file does. */
export function looksLikeLegacyPth(start: Uint8Array): boolean {
  return magic.every((byte, i) => start[i] === byte);
}

/**
 * Reads the directory of a legacy .pth.
 *
 * @throws CheckpointError
 */
export async function readLegacyPth(source: ByteSource): Promise<Directory> {
  const storages = new Map<string, Storage>();
  const vocabulary: PickleVocabulary = {
    globals: torchGlobals(source.name),
    persistentLoad(id) {
      const storage = storageOf(source.name, id);
      if ((id as unknown[])[5] != null) {
        throw new CheckpointError(source.name, `storage ${storage.key}: views of storages are not supported`);
      }
      const known = storages.get(storage.key);
      if (known) {
        if (known.dtype === storage.dtype && known.length === storage.length) return known;
        throw new CheckpointError(source.name, `storage ${storage.key}: described twice, with different sizes`);
      }
      storages.set(storage.key, storage);
      return storage;
    },
  };
  const { values, end } = await readPickles(source, magic.length, 4, vocabulary);
  const [version, system, root, keys] = values;
  if (version !== protocolVersion) {
    throw new CheckpointError(source.name, `expected legacy protocol ${protocolVersion}, found ${String(version)}`);
  }
  if (!(system instanceof Map) || system.get("little_endian") !== true) {
    throw new CheckpointError(source.name, "expected little-endian data");
  }
  await placeStorages(source, storages, keys, end);
  return readStateDict(source, root);
}

/** Reads `count` consecutive pickles, through a window that grows only when a pickle extends beyond its end. */
async function readPickles(source: ByteSource, start: number, count: number, vocabulary: PickleVocabulary) {
  for (let window = firstWindow; ; window *= 4) {
    const bytes = await readRange(source, start, Math.min(window, source.size - start));
    try {
      const values: PickleValue[] = [];
      let at = 0;
      for (let i = 0; i < count; i++) {
        const { value, length } = unpickle(source.name, bytes.subarray(at), vocabulary);
        values.push(value);
        at += length;
      }
      return { values, end: start + at };
    } catch (error) {
      const more = bytes.length < source.size - start && window < maxPickleSize;
      if (!(error instanceof PickleTruncated) || !more) throw error;
    }
  }
}

/** Walks over the storages after the pickles. Each is a 64-bit element count, followed by the elements. */
async function placeStorages(source: ByteSource, storages: Map<string, Storage>, keys: PickleValue, start: number) {
  if (!Array.isArray(keys) || keys.length !== storages.size) {
    throw new CheckpointError(source.name, `expected a list of ${storages.size} storage keys`);
  }
  const placed = new Set<unknown>();
  let at = start;
  for (const key of keys) {
    const storage = storages.get(key as string);
    if (!storage || placed.has(key)) {
      throw new CheckpointError(source.name, `storage ${String(key)} is unknown or listed twice`);
    }
    placed.add(key);
    const header = await readRange(source, at, 8);
    const length = new DataView(header.buffer).getBigInt64(0, true);
    if (length !== BigInt(storage.length)) {
      throw new CheckpointError(source.name, `storage ${key}: expected ${storage.length} elements, found ${length}`);
    }
    storage.offset = at + 8;
    at = storage.offset + storage.length * bytesPerElement[storage.dtype];
    if (at > source.size) {
      throw new CheckpointError(
        source.name,
        `storage ${key} ends at byte ${at}, past the file's ${source.size} (truncated)`,
      );
    }
  }
}
