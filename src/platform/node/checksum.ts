// Checksums, as Node has them: CRC-32 at six times the speed of a table in JavaScript, SHA by instructions of the processor. Pages have
// src/platform/browser/checksum.ts instead.

import { createHash } from "node:crypto";
import type { Hasher, Sum } from "../platform.js";

export { crc32 } from "node:zlib";

/** A sum of bytes that come one after another. @param size of all of them */
export async function createHasher(algorithm: Sum["algorithm"], size: number): Promise<Hasher> {
  const hash = createHash(algorithm === "sha256" ? "sha256" : "sha1");
  if (algorithm === "git-sha1") hash.update(`blob ${size}\0`);
  return { update: (bytes) => void hash.update(bytes), hex: () => hash.digest("hex") };
}
