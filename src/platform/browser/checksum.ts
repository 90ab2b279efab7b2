// CRC-32 (IEEE 802.3, as in zip), eight bytes a step: pages have no function for it. Nor have they one for SHA of bytes that come one after
// another.

import type { Hasher, Sum } from "../platform.js";

const tables = buildTables();

function buildTables(): Uint32Array[] {
  const first = new Uint32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
    first[byte] = value;
  }
  const all = [first];
  for (let distance = 1; distance < 8; distance++) {
    const before = all[distance - 1] as Uint32Array;
    all.push(before.map((value) => (first[value & 255] as number) ^ (value >>> 8)));
  }
  return all;
}

/** CRC-32 of `bytes`, continued from `crc` (0 to start); an unsigned 32-bit integer. */
export function crc32(bytes: Uint8Array, crc = 0): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = tables as [
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
  ];
  let value = ~crc;
  let i = 0;
  for (; i + 8 <= bytes.length; i += 8) {
    value ^=
      (bytes[i] as number) |
      ((bytes[i + 1] as number) << 8) |
      ((bytes[i + 2] as number) << 16) |
      ((bytes[i + 3] as number) << 24);
    value =
      (t7[value & 255] as number) ^
      (t6[(value >>> 8) & 255] as number) ^
      (t5[(value >>> 16) & 255] as number) ^
      (t4[value >>> 24] as number) ^
      (t3[bytes[i + 4] as number] as number) ^
      (t2[bytes[i + 5] as number] as number) ^
      (t1[bytes[i + 6] as number] as number) ^
      (t0[bytes[i + 7] as number] as number);
  }
  for (; i < bytes.length; i++) value = (t0[(value ^ (bytes[i] as number)) & 255] as number) ^ (value >>> 8);
  return ~value >>> 0;
}

/** A sum of bytes that come one after another. @param size of all of them */
export async function createHasher(algorithm: Sum["algorithm"], size: number): Promise<Hasher> {
  const hash =
    algorithm === "sha256"
      ? (await import("@noble/hashes/sha2.js")).sha256.create()
      : (await import("@noble/hashes/legacy.js")).sha1.create();
  if (algorithm === "git-sha1") hash.update(new TextEncoder().encode(`blob ${size}\0`));
  const digits = (byte: number) => byte.toString(16).padStart(2, "0");
  return { update: (bytes) => void hash.update(bytes), hex: () => Array.from(hash.digest(), digits).join("") };
}
