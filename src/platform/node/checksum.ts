// CRC-32, as Node has it: six times the speed of a table in JavaScript. Pages have src/platform/browser/checksum.ts instead.

export { crc32 } from "node:zlib";
