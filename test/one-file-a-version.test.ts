// Nothing outside src/models/ and the lab knows one RWKV version from another.

import { readdir, readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const source = fileURLToPath(new URL("../src/", import.meta.url));
/** The lab is about what versions differ in. */
const apart = /^(models|lab)\//;
/** What help texts show: commands with the names of files. */
const example = /^\s*\$ rwkv .*$/gm;
/** Names of official models, which the hub's table and examples in comments have. */
const officialName = /\brwkv-?\d-(g1|world)[\w.-]*/gi;

test("no other folder imports a version's file, or names a version or its tensors", async () => {
  const files = (await readdir(source, { recursive: true })).filter((file) => /\.ts$/.test(file) && !apart.test(file));
  expect(files.length).toBeGreaterThan(100);
  const found: string[] = [];
  for (const file of files) {
    const text = (await readFile(source + file, "utf8")).replace(example, "").replace(officialName, "");
    for (const [match] of text.matchAll(
      /models\/rwkv\w+\.js|\brwkv-?\d\b|\bblocks\.\d|\btime_(mix|decay|first)\w*/gi,
    )) {
      found.push(`${file}: ${match}`);
    }
  }
  expect(found).toEqual([]);
});
