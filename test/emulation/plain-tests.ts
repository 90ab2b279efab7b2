// Test files as plain JavaScript, for run-tests.mjs: types taken off, and vitest replaced by what vitest.mjs has of it.

import { mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { transform } from "esbuild";

const root = fileURLToPath(new URL("../../", import.meta.url));
const substitute = JSON.stringify("../test/emulation/vitest.mjs");

/**
 * Writes them to a folder beside test/, from where the files that they name are as far as from there.
 *
 * @returns the folder, and what removes it
 */
export async function plainTests(): Promise<{ folder: string; remove: () => Promise<void> }> {
  const folder = await mkdtemp(join(root, ".plain-tests-"));
  for (const name of await readdir(join(root, "test"))) {
    if (!name.endsWith(".ts")) continue;
    const source = await readFile(join(root, "test", name), "utf8");
    const { code } = await transform(source, { loader: "ts", format: "esm", target: "node20" });
    // What vitest.config.ts does for vitest: the name of internal modules.
    const located = code.replace(/"#rwkv\/([^"]+)"/g, '"../dist/$1.js"');
    const plain = located.replaceAll('from "vitest"', `from ${substitute}`);
    await writeFile(join(folder, name.replace(/\.ts$/, ".js")), plain);
  }
  await symlink(join(root, "test/fixtures"), join(folder, "fixtures"), "junction");
  return { folder, remove: () => rm(folder, { recursive: true, force: true }) };
}
