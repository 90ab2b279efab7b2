// Cuts fairy-tales.txt into its books, one file each, by the lengths in SOURCES.md, so that training holds out the end of each.
//
//   node tools/embedded-model/split-books.mjs fairy-tales.txt SOURCES.md books/

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [textPath, sourcesPath, folder] = process.argv.slice(2);
if (!folder) throw new Error("expected a text, its SOURCES.md, and a folder to write to");
const text = readFileSync(textPath, "utf8").trimEnd();
const rows = readFileSync(sourcesPath, "utf8").matchAll(/^\| ([^|]+) \| (\d+) \| ([\d,]+) \|$/gm);
mkdirSync(folder, { recursive: true });
let at = 0;
let books = 0;
for (const [, title, number, length] of rows) {
  const end = at + Number(length.replaceAll(",", ""));
  writeFileSync(join(folder, `${number}-${title.replaceAll(/\W+/g, "-")}.txt`), text.slice(at, end));
  at = end + 2; // two newlines between books
  books++;
}
if (at - 2 !== text.length)
  throw new Error(`${sourcesPath} gives ${at - 2} characters, ${textPath} has ${text.length}`);
console.log(`${books} books, ${at - 2} characters`);
