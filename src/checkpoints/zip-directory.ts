// The directory of a zip archive: where each stored entry's bytes lie. torch.save writes such archives with stored
// (uncompressed) entries, aligned to 64 bytes, so tensors can be mapped in place. Therefore entries are never
// inflated, and a compressed one is an error that names it. Format: PKWARE APPNOTE 6.3.10, sections 4.3 (records) and
// 4.5.3 (zip64).

import { type ByteSource, readRange, readSoon } from "../byte-source.js";
import { CheckpointError } from "../errors.js";
import { expectedOffsets } from "./zip-layout.js";

/** A stored entry of the archive. */
export interface ZipEntry {
  readonly name: string;
  /** Position of the entry's first byte in the archive. */
  readonly offset: number;
  readonly size: number;
  /** The CRC-32 of the bytes; 0 where it was not computed, as PyTorch can be told. */
  readonly crc32: number;
  /** How the entry's bytes are packed; undefined for a stored entry. */
  readonly packed?: "a compressed" | "an encrypted";
}

interface CentralRecord extends Omit<ZipEntry, "offset"> {
  localOffset: number;
}

const endRecordSize = 22;
const centralRecordSize = 46;
const localRecordSize = 30;
const maxDirectorySize = 2 * 2 ** 20;
const maxEntries = 10_000;

/** Whether the file starts as a zip archive does. */
export function looksLikeZip(start: Uint8Array): boolean {
  return start[0] === 0x50 && start[1] === 0x4b && start[2] === 3 && start[3] === 4;
}

/**
 * Reads the directory of a zip archive and checks it: entries lie inside the file and do not overlap.
 *
 * @throws CheckpointError
 */
export async function readZipDirectory(source: ByteSource): Promise<Map<string, ZipEntry>> {
  const { offset, size, count } = await findDirectory(source);
  if (size > maxDirectorySize || count > maxEntries) {
    throw new CheckpointError(
      source.name,
      `zip directory claims ${count} entries in ${size} bytes; expected at most ${maxEntries} in ${maxDirectorySize}`,
    );
  }
  const records = parseDirectory(source, await readSoon(source, offset, size), count);
  records.sort((a, b) => a.localOffset - b.localOffset);

  const entries = new Map<string, ZipEntry>();
  const starts = await offsetsOf(source, records, offset);
  records.forEach(({ localOffset: _, ...record }, i) => {
    const start = starts[i] as number;
    const limit = records[i + 1]?.localOffset ?? offset;
    if (start + record.size > limit) {
      throw new CheckpointError(
        source.name,
        `zip entry ${record.name} of ${record.size} bytes at ${start} overlaps what follows at ${limit}`,
      );
    }
    if (entries.has(record.name)) throw new CheckpointError(source.name, `there are two zip entries ${record.name}`);
    entries.set(record.name, { ...record, offset: start });
  });
  return entries;
}

/**
 * Position, size and entry count of the central directory, from the end record and its zip64 extension (4.3.14 -
 * 4.3.16).
 */
async function findDirectory(source: ByteSource): Promise<{ offset: number; size: number; count: number }> {
  const tailSize = Math.min(source.size, endRecordSize + 0xffff);
  const tailOffset = source.size - tailSize;
  const tail = await readSoon(source, tailOffset, tailSize);
  const view = viewOf(tail);
  for (let at = tailSize - endRecordSize; at >= 0; at--) {
    if (view.getUint32(at, true) !== 0x06054b50) continue;
    if (at + endRecordSize + view.getUint16(at + 20, true) !== tailSize) continue;
    const count = view.getUint16(at + 10, true);
    const size = view.getUint32(at + 12, true);
    const offset = view.getUint32(at + 16, true);
    if (count !== 0xffff && size !== 0xffffffff && offset !== 0xffffffff) return { offset, size, count };
    return readZip64End(source, tailOffset + at);
  }
  throw new CheckpointError(
    source.name,
    "zip archive without its end record (the file is truncated, damaged, or has something appended)",
  );
}

async function readZip64End(source: ByteSource, endRecord: number) {
  const locator = viewOf(await readSoon(source, endRecord - 20, 20));
  if (locator.getUint32(0, true) !== 0x07064b50) {
    throw new CheckpointError(source.name, "zip64 locator expected before the end record");
  }
  const record = viewOf(await readSoon(source, readUint64(source, locator, 8), 56));
  if (record.getUint32(0, true) !== 0x06064b50) throw new CheckpointError(source.name, "zip64 end record expected");
  return {
    count: readUint64(source, record, 32),
    size: readUint64(source, record, 40),
    offset: readUint64(source, record, 48),
  };
}

function parseDirectory(source: ByteSource, bytes: Uint8Array, count: number): CentralRecord[] {
  const view = viewOf(bytes);
  const decoder = new TextDecoder("utf-8", { fatal: false });
  const records: CentralRecord[] = [];
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + centralRecordSize > bytes.length || view.getUint32(at, true) !== 0x02014b50) {
      throw new CheckpointError(source.name, `zip directory is damaged at entry ${i} of ${count}`);
    }
    const nameLength = view.getUint16(at + 28, true);
    const extraLength = view.getUint16(at + 30, true);
    const commentLength = view.getUint16(at + 32, true);
    const nameStart = at + centralRecordSize;
    const end = nameStart + nameLength + extraLength + commentLength;
    if (end > bytes.length) throw new CheckpointError(source.name, `zip directory ends inside entry ${i} of ${count}`);
    const name = decoder.decode(bytes.subarray(nameStart, nameStart + nameLength));
    const encrypted = view.getUint16(at + 8, true) & 1 ? ("an encrypted" as const) : undefined;
    const packed = view.getUint16(at + 10, true) !== 0 ? ("a compressed" as const) : encrypted;
    const sizes = {
      uncompressed: view.getUint32(at + 24, true),
      compressed: view.getUint32(at + 20, true),
      localOffset: view.getUint32(at + 42, true),
    };
    applyZip64Extra(source, name, view, nameStart + nameLength, extraLength, sizes);
    if (!packed && sizes.compressed !== sizes.uncompressed) {
      throw new CheckpointError(
        source.name,
        `zip entry ${name}: expected one size for a stored entry, found ${sizes.compressed} and ${sizes.uncompressed} bytes`,
      );
    }
    records.push({
      name,
      size: sizes.compressed,
      crc32: view.getUint32(at + 16, true),
      localOffset: sizes.localOffset,
      ...(packed && { packed }),
    });
    at = end;
  }
  return records;
}

/** Reads the fields that are 0xffffffff from the zip64 extra field, which has them in this order (4.5.3). */
function applyZip64Extra(
  source: ByteSource,
  entry: string,
  view: DataView,
  start: number,
  length: number,
  sizes: { uncompressed: number; compressed: number; localOffset: number },
): void {
  let at = start;
  while (at + 4 <= start + length) {
    const id = view.getUint16(at, true);
    const fieldEnd = at + 4 + view.getUint16(at + 2, true);
    at += 4;
    if (fieldEnd > start + length) break;
    if (id === 1) {
      for (const key of ["uncompressed", "compressed", "localOffset"] as const) {
        if (sizes[key] !== 0xffffffff) continue;
        if (at + 8 > fieldEnd) throw new CheckpointError(source.name, `zip entry ${entry}: zip64 field is too short`);
        sizes[key] = readUint64(source, view, at);
        at += 8;
      }
    }
    at = fieldEnd;
  }
}

/**
 * Where each entry's bytes begin. Of a file that is still being downloaded it is computed, as far as it can be, since local headers are
 * all over the file; they are looked at as they come.
 *
 * @param end of the entries
 */
async function offsetsOf(source: ByteSource, records: readonly CentralRecord[], end: number): Promise<number[]> {
  const expected = source.arrival && expectedOffsets(records, end);
  if (!expected) return dataOffsets(source, records);
  const check = async () => {
    const found = await dataOffsets(source, records);
    const wrong = records.find((_, i) => found[i] !== expected[i]);
    if (wrong) throw new CheckpointError(source.name, `zip entry ${wrong.name} is not where it was expected`);
  };
  source.arrival?.later(check());
  return expected;
}

/**
 * Where each entry's bytes begin: behind its local header, whose name and extra field have lengths of their own
 * (4.3.7).
 */
async function dataOffsets(source: ByteSource, records: readonly CentralRecord[]): Promise<number[]> {
  const starts: number[] = [];
  const headersAtOnce = 64;
  for (let i = 0; i < records.length; i += headersAtOnce) {
    const group = records.slice(i, i + headersAtOnce);
    const headers = await Promise.all(group.map((r) => readRange(source, r.localOffset, localRecordSize)));
    headers.forEach((header, j) => {
      const record = group[j] as CentralRecord;
      const view = viewOf(header);
      if (view.getUint32(0, true) !== 0x04034b50) {
        throw new CheckpointError(source.name, `zip entry ${record.name}: no local header at ${record.localOffset}`);
      }
      starts.push(record.localOffset + localRecordSize + view.getUint16(26, true) + view.getUint16(28, true));
    });
  }
  return starts;
}

function readUint64(source: ByteSource, view: DataView, at: number): number {
  const value = view.getBigUint64(at, true);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new CheckpointError(source.name, `zip archive claims a size or offset of ${value} bytes`);
  }
  return Number(value);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
