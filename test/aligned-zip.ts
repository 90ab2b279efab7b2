// Builds zip archives as torch.save does: stored entries whose bytes begin at multiples of 64, with a local header that is filled up to there.

import { crc32 } from "node:zlib";

/** An entry, and how many bytes lie behind it that belong to none. */
export interface AlignedEntry {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly gap: number;
}

export function alignedZip(entries: readonly AlignedEntry[]): Buffer {
  const parts: Uint8Array[] = [];
  const central: Buffer[] = [];
  let at = 0;
  const append = (...bytes: Uint8Array[]) => {
    for (const part of bytes) at += part.length;
    parts.push(...bytes);
  };
  for (const { name, bytes, gap } of entries) {
    const text = Buffer.from(name);
    const offset = at;
    const begin = Math.ceil((at + 34 + text.length) / 64) * 64;
    const local = Buffer.alloc(begin - at);
    local.writeUInt32LE(0x04034b50, 0);
    local.writeUInt16LE(text.length, 26);
    local.writeUInt16LE(local.length - 30 - text.length, 28);
    text.copy(local, 30);
    append(local, bytes, Buffer.alloc(gap));
    const record = Buffer.alloc(46);
    record.writeUInt32LE(0x02014b50, 0);
    record.writeUInt32LE(crc32(bytes), 16);
    record.writeUInt32LE(bytes.length, 20);
    record.writeUInt32LE(bytes.length, 24);
    record.writeUInt16LE(text.length, 28);
    record.writeUInt32LE(offset, 42);
    central.push(record, text);
  }
  const start = at;
  append(...central);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(at - start, 12);
  end.writeUInt32LE(start, 16);
  return Buffer.concat([...parts, end]);
}
