// Writes a state dict as torch.save does: a zip of stored entries, data.pkl first, each storage aligned to 64 bytes,
// zip64 records where sizes or offsets need them. torch.load reads the result, also with weights_only=True.

import { writeFileAtomically } from "#platform/file-writer";
import { crc32 } from "../checksum.js";
import { isElementType } from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import type { FileAppender } from "../platform/platform.js";
import { byteLengthOf } from "./checkpoint.js";
import { PickleWriter } from "./pickle-writer.js";
import { metadataEntry } from "./pth.js";
import { maxPickleSize } from "./unpickler.js";
import { checkWritable, type WritableTensor, type WriteOptions, writtenBytes } from "./writer.js";

interface WrittenEntry {
  name: Uint8Array;
  size: number;
  crc32: number;
  localOffset: number;
}

const alignment = 64;
const localRecordSize = 30;
const uint32Max = 0xffffffff;

/**
 * Writes a .pth file under a temporary name and renames it.
 *
 * @throws CheckpointError when the file cannot be written, the bytes of a tensor do not match its type and shape, or
 *   a tensor is quantized to blocks, for which PyTorch has no type; OptionError for wrong arguments
 */
export async function writePth(
  path: string,
  tensors: readonly WritableTensor[],
  options: WriteOptions = {},
): Promise<void> {
  await writeFileAtomically(path, checkedWriter(path, tensors, options));
}

/**
 * The same as bytes in memory.
 *
 * @throws as `writePth`
 */
export async function pthBytes(
  tensors: readonly WritableTensor[],
  options: WriteOptions = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const file = new MemoryFile();
  await checkedWriter("model.pth", tensors, options)(file);
  return file.bytes();
}

/** A file in memory, which grows as it needs. */
class MemoryFile implements FileAppender {
  #content = new Uint8Array(2 ** 16);
  position = 0;

  async append(bytes: Uint8Array): Promise<void> {
    const end = this.position + bytes.length;
    if (end > this.#content.length) {
      const larger = new Uint8Array(Math.max(end, 2 * this.#content.length));
      larger.set(this.#content.subarray(0, this.position));
      this.#content = larger;
    }
    this.#content.set(bytes, this.position);
    this.position = end;
  }

  async patch(position: number, bytes: Uint8Array): Promise<void> {
    this.#content.set(bytes, position);
  }

  bytes(): Uint8Array<ArrayBuffer> {
    return this.#content.slice(0, this.position);
  }
}

/** What writes the file, once all is known to be in order. */
function checkedWriter(path: string, tensors: readonly WritableTensor[], options: WriteOptions) {
  checkWritable(path, tensors);
  const pickle = stateDictPickle(path, tensors);
  if (pickle.length > maxPickleSize) {
    throw new CheckpointError(path, `names and shapes take ${pickle.length} bytes; expected at most ${maxPickleSize}`);
  }
  const metadata = Object.keys(options.metadata ?? {}).length > 0 ? options.metadata : undefined;
  return async (file: FileAppender) => {
    const entries: WrittenEntry[] = [];
    const writeBytes = async (name: string, bytes: Uint8Array) => {
      entries.push(await writeEntry(file, `archive/${name}`, bytes.length, [bytes]));
    };
    await writeBytes("data.pkl", pickle);
    for (const [index, tensor] of tensors.entries()) {
      entries.push(await writeEntry(file, `archive/data/${index}`, byteLengthOf(tensor), writtenBytes(path, tensor)));
    }
    if (metadata) await writeBytes(metadataEntry, new TextEncoder().encode(JSON.stringify(metadata)));
    await writeBytes("version", new TextEncoder().encode("3\n"));
    await writeDirectory(file, entries);
  };
}

/** The pickle of an OrderedDict that maps names to contiguous tensors, each with its own storage. */
function stateDictPickle(path: string, tensors: readonly WritableTensor[]): Uint8Array {
  const pickle = new PickleWriter();
  pickle.orderedDict(() => {
    for (const [index, tensor] of tensors.entries()) {
      const { name, dtype, shape } = tensor;
      if (!isElementType(dtype))
        throw new CheckpointError(
          path,
          `tensor ${name}: a .pth file cannot hold ${dtype}; write .safetensors or .gguf, or give --dtype f16`,
        );
      pickle.text(name);
      pickle.tensor(String(index), dtype, shape);
    }
  });
  return pickle.finish();
}

async function writeEntry(
  file: FileAppender,
  name: string,
  size: number,
  pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<WrittenEntry> {
  const entry: WrittenEntry = { name: new TextEncoder().encode(name), size, crc32: 0, localOffset: file.position };
  await file.append(localRecord(entry));
  for await (const piece of pieces) {
    entry.crc32 = crc32(piece, entry.crc32);
    await file.append(piece);
  }
  const checksum = new Uint8Array(4);
  new DataView(checksum.buffer).setUint32(0, entry.crc32, true);
  await file.patch(entry.localOffset + 14, checksum);
  return entry;
}

/**
 * The local header (APPNOTE 4.3.7), with an extra field "FB" that pads the data to the alignment as PyTorch's writer
 * does.
 */
function localRecord(entry: WrittenEntry): Uint8Array {
  const zip64 = entry.size >= uint32Max;
  const fixed = localRecordSize + entry.name.length + (zip64 ? 20 : 0) + 4;
  const padding = (alignment - ((entry.localOffset + fixed) % alignment)) % alignment;
  const bytes = new Uint8Array(fixed + padding);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x04034b50, true);
  view.setUint16(4, zip64 ? 45 : 20, true);
  view.setUint32(18, Math.min(entry.size, uint32Max), true);
  view.setUint32(22, Math.min(entry.size, uint32Max), true);
  view.setUint16(26, entry.name.length, true);
  view.setUint16(28, bytes.length - localRecordSize - entry.name.length, true);
  bytes.set(entry.name, localRecordSize);
  let at = localRecordSize + entry.name.length;
  if (zip64) {
    view.setUint16(at, 1, true);
    view.setUint16(at + 2, 16, true);
    view.setBigUint64(at + 4, BigInt(entry.size), true);
    view.setBigUint64(at + 12, BigInt(entry.size), true);
    at += 20;
  }
  bytes.set([0x46, 0x42], at);
  view.setUint16(at + 2, padding, true);
  return bytes;
}

async function writeDirectory(file: FileAppender, entries: readonly WrittenEntry[]): Promise<void> {
  const start = file.position;
  for (const entry of entries) await file.append(centralRecord(entry));
  const size = file.position - start;
  const zip64 = entries.length >= 0xffff || start >= uint32Max;
  const end = new Uint8Array((zip64 ? 56 + 20 : 0) + 22);
  const view = new DataView(end.buffer);
  let at = 0;
  if (zip64) {
    view.setUint32(0, 0x06064b50, true);
    view.setBigUint64(4, 44n, true);
    view.setUint16(12, 45, true);
    view.setUint16(14, 45, true);
    view.setBigUint64(24, BigInt(entries.length), true);
    view.setBigUint64(32, BigInt(entries.length), true);
    view.setBigUint64(40, BigInt(size), true);
    view.setBigUint64(48, BigInt(start), true);
    view.setUint32(56, 0x07064b50, true);
    view.setBigUint64(64, BigInt(start + size), true);
    view.setUint32(72, 1, true);
    at = 76;
  }
  view.setUint32(at, 0x06054b50, true);
  view.setUint16(at + 8, Math.min(entries.length, 0xffff), true);
  view.setUint16(at + 10, Math.min(entries.length, 0xffff), true);
  view.setUint32(at + 12, size, true);
  view.setUint32(at + 16, Math.min(start, uint32Max), true);
  await file.append(end);
}

function centralRecord(entry: WrittenEntry): Uint8Array {
  const large = [entry.size, entry.size, entry.localOffset].filter((value) => value >= uint32Max);
  const extra = large.length ? 4 + 8 * large.length : 0;
  const bytes = new Uint8Array(46 + entry.name.length + extra);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x02014b50, true);
  view.setUint16(4, 45, true);
  view.setUint16(6, extra ? 45 : 20, true);
  view.setUint32(16, entry.crc32, true);
  view.setUint32(20, Math.min(entry.size, uint32Max), true);
  view.setUint32(24, Math.min(entry.size, uint32Max), true);
  view.setUint16(28, entry.name.length, true);
  view.setUint16(30, extra, true);
  view.setUint32(42, Math.min(entry.localOffset, uint32Max), true);
  bytes.set(entry.name, 46);
  if (extra) {
    const at = 46 + entry.name.length;
    view.setUint16(at, 1, true);
    view.setUint16(at + 2, 8 * large.length, true);
    large.forEach((value, i) => view.setBigUint64(at + 4 + 8 * i, BigInt(value), true));
  }
  return bytes;
}
