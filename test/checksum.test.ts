// The CRC-32 of pages against Node's.

import { crc32 as nodeCrc32 } from "node:zlib";
import fc from "fast-check";
import { expect, test } from "vitest";
import { crc32 as pageCrc32 } from "#rwkv/platform/browser/checksum";

test("the table that pages use gives what zlib gives, continued or whole", () => {
  expect(pageCrc32(new TextEncoder().encode("123456789"))).toBe(0xcbf43926);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), fc.nat(100), (bytes, cut) => {
      expect(pageCrc32(bytes)).toBe(nodeCrc32(bytes));
      expect(pageCrc32(bytes.subarray(cut), pageCrc32(bytes.subarray(0, cut)))).toBe(nodeCrc32(bytes));
    }),
  );
});
