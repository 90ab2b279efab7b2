// Builds zip archives, sound or hostile, for tests of the reader. Written from the format's description, independently of
// the package's writer.

import { open } from "node:fs/promises";
import { crc32 } from "node:zlib";

/** An entry: bytes, or a hole of a given size (sparse on disk), and claims that differ from the truth. */
export interface BuiltEntry {
  name: string;
  bytes?: Uint8Array;
  hole?: number;
  method?: number;
  flags?: number;
  claimedSize?: number;
  claimedCompressedSize?: number;
  claimedOffset?: number;
  crc32?: number;
}

/** Writes an archive; sizes and offsets past 2^32 get zip64 fields. */
export async function buildZip(
  path: string,
  entries: readonly BuiltEntry[],
  options: { claimedCount?: number; claimedDirectorySize?: number; zip64?: boolean } = {},
): Promise<void> {
  const file = await open(path, "w");
  try {
    let at = 0;
    const append = async (bytes: Uint8Array) => {
      await file.write(bytes, 0, bytes.length, at);
      at += bytes.length;
    };
    const central: Uint8Array[] = [];
    for (const entry of entries) {
      const name = Buffer.from(entry.name);
      const size = entry.bytes?.length ?? entry.hole ?? 0;
      const offset = at;
      const local = Buffer.alloc(30);
      local.writeUInt32LE(0x04034b50, 0);
      local.writeUInt16LE(name.length, 26);
      await append(local);
      await append(name);
      if (entry.bytes) await append(entry.bytes);
      else at += size;
      central.push(centralRecord(entry, name, size, offset));
    }
    const start = at;
    for (const record of central) await append(record);
    const size = options.claimedDirectorySize ?? at - start;
    const count = options.claimedCount ?? entries.length;
    if (options.zip64 || start > 0xffffffff) {
      const zip64 = Buffer.alloc(76);
      zip64.writeUInt32LE(0x06064b50, 0);
      zip64.writeBigUInt64LE(44n, 4);
      zip64.writeBigUInt64LE(BigInt(count), 24);
      zip64.writeBigUInt64LE(BigInt(count), 32);
      zip64.writeBigUInt64LE(BigInt(size), 40);
      zip64.writeBigUInt64LE(BigInt(start), 48);
      zip64.writeUInt32LE(0x07064b50, 56);
      zip64.writeBigUInt64LE(BigInt(at), 64);
      zip64.writeUInt32LE(1, 72);
      await append(zip64);
      await append(endRecord(0xffff, 0xffffffff, 0xffffffff));
    } else await append(endRecord(Math.min(count, 0xffff), size, start));
  } finally {
    await file.close();
  }
}

function centralRecord(entry: BuiltEntry, name: Buffer, size: number, offset: number): Buffer {
  const fields = [
    entry.claimedSize ?? size,
    entry.claimedCompressedSize ?? entry.claimedSize ?? size,
    entry.claimedOffset ?? offset,
  ];
  const large = fields.filter((value) => value > 0xfffffffe);
  const extra = Buffer.alloc(large.length ? 4 + 8 * large.length : 0);
  if (large.length) {
    extra.writeUInt16LE(1, 0);
    extra.writeUInt16LE(8 * large.length, 2);
    large.forEach((value, i) => extra.writeBigUInt64LE(BigInt(value), 4 + 8 * i));
  }
  const record = Buffer.alloc(46);
  record.writeUInt32LE(0x02014b50, 0);
  record.writeUInt16LE(entry.flags ?? 0, 8);
  record.writeUInt16LE(entry.method ?? 0, 10);
  record.writeUInt32LE(entry.crc32 ?? (entry.bytes ? crc32(entry.bytes) : 0), 16);
  record.writeUInt32LE(Math.min(fields[1] as number, 0xffffffff), 20);
  record.writeUInt32LE(Math.min(fields[0] as number, 0xffffffff), 24);
  record.writeUInt16LE(name.length, 28);
  record.writeUInt16LE(extra.length, 30);
  record.writeUInt32LE(Math.min(fields[2] as number, 0xffffffff), 42);
  return Buffer.concat([record, name, extra]);
}

function endRecord(count: number, size: number, offset: number): Buffer {
  const record = Buffer.alloc(22);
  record.writeUInt32LE(0x06054b50, 0);
  record.writeUInt16LE(count, 8);
  record.writeUInt16LE(count, 10);
  record.writeUInt32LE(size, 12);
  record.writeUInt32LE(offset, 16);
  return record;
}
