// Removes from dist/ what was compiled from sources that are no longer in src/, so that no import of them works by accident, and
// no package has them. What else is there stays: WebAssembly, and whatever tests that run meanwhile read.
//
//   node tools/remove-stale.mjs [sources] [build]

import { existsSync } from "node:fs";
import { readdir, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../", import.meta.url));
const [sources = join(root, "src"), build = join(root, "dist")] = process.argv.slice(2);

await sweep("");

async function sweep(folder) {
  for (const entry of await readdir(join(build, folder), { withFileTypes: true }).catch(() => [])) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      await sweep(path);
      // Only an empty folder is removed.
      if (!existsSync(join(sources, path))) await rmdir(join(build, path)).catch(() => {});
      continue;
    }
    const [, name] = /^(.*)(?:\.js|\.js\.map|\.d\.ts)$/.exec(path) ?? [];
    if (name !== undefined && !existsSync(join(sources, `${name}.ts`))) await rm(join(build, path));
  }
}
