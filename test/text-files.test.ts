// Text of files: UTF-8 and nothing else, without a byte order mark.

import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { openCheckpoint } from "rwkv";
import { expect, test } from "vitest";
import { decodeText } from "#rwkv/text-files";
import { fixture, temporaryFolder } from "./fixture-files.js";

const decode = (bytes: Uint8Array) => decodeText(bytes, (reason) => new Error(`file: ${reason}`));
const utf16 = (text: string) => Buffer.from(text, "utf16le");

test("any text comes back, without the mark at its beginning", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), (text) => {
      fc.pre(!text.includes("\0") && !text.startsWith("\ufeff"));
      expect(decode(Buffer.from(text))).toBe(text);
      expect(decode(Buffer.from(`\ufeff${text}`))).toBe(text);
    }),
  );
  expect(decode(Buffer.from("a\0b\ufeffc"))).toBe("a\0b\ufeffc");
  expect(decode(Buffer.from("\ufeff\ufeffa"))).toBe("\ufeffa");
  expect(decode(new Uint8Array(0))).toBe("");
});

test.each([
  [Buffer.from("Gr\xfc\xdfe", "latin1"), "found the invalid byte 0xfc at offset 2"],
  [Buffer.from("\x80", "latin1"), "found the invalid byte 0x80 at offset 0"],
  [Buffer.from([0x61, 0xe4, 0xb8]), "found the invalid byte 0xe4 at offset 1"],
  [Buffer.from([0x61, 0xed, 0xa0, 0x80]), "found the invalid byte 0xed at offset 1"],
  [
    Buffer.concat([Buffer.from("é".repeat(2 ** 20)), Buffer.from([0xff])]),
    `found the invalid byte 0xff at offset ${2 ** 21}`,
  ],
  [
    Buffer.concat([Buffer.from("a".repeat(2 ** 20 - 1)), Buffer.from([0xc3]), Buffer.from("aé")]),
    `0xc3 at offset ${2 ** 20 - 1}`,
  ],
  [Buffer.concat([Buffer.from([0xff, 0xfe]), utf16("Hi")]), "found UTF-16 LE (its byte order mark is at offset 0)"],
  [Buffer.from([0xfe, 0xff, 0, 0x61]), "found UTF-16 BE (its byte order mark is at offset 0)"],
  [utf16("The king said no."), "found UTF-16 LE (every second byte is zero)"],
  [utf16("The king said no.").swap16(), "found UTF-16 BE (every second byte is zero)"],
])("%#: another encoding is named, with the place", (bytes, message) => {
  expect(() => decode(bytes)).toThrow(
    `file: expected UTF-8 text, ${message.startsWith("0x") ? "found the invalid byte " : ""}${message}`,
  );
});

test("the place of the first invalid byte is exact", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), fc.string({ unit: "grapheme" }), (before, after) => {
      fc.pre(!before.includes("\0") && !before.startsWith("\ufeff"));
      const start = Buffer.from(before);
      const bytes = Buffer.concat([start, Buffer.from([0xff]), Buffer.from(after)]);
      fc.pre(bytes[1] !== 0xfe);
      expect(() => decode(bytes)).toThrow(`at offset ${start.length};`);
    }),
  );
});

test("a config.json may begin with a byte order mark", async () => {
  const folder = await temporaryFolder();
  await cp(fixture("odd-hugging-face"), folder, { recursive: true });
  const config = join(folder, "config.json");
  await writeFile(config, `\ufeff${await readFile(config, "utf8")}`);
  const checkpoint = await openCheckpoint(folder);
  expect(checkpoint.config).toMatchObject({ model_type: "rwkv" });
  await checkpoint.close();
});
