// What building removes from dist/: files of sources that are gone, and nothing else.

import { execFileSync } from "node:child_process";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { temporaryFolder } from "./fixture-files.js";

test("removes what was compiled from sources that are gone", async () => {
  const folder = await temporaryFolder();
  const compiled = (name: string) => [`dist/${name}.js`, `dist/${name}.js.map`, `dist/${name}.d.ts`];
  const kept = ["src/a.ts", "src/part/b.ts", ...compiled("a"), ...compiled("part/b"), "dist/kernels.wasm"];
  for (const path of [...kept, ...compiled("gone"), ...compiled("part/gone"), ...compiled("other/deep/gone")]) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), "");
  }
  const tool = fileURLToPath(new URL("../tools/remove-stale.mjs", import.meta.url));
  execFileSync(process.execPath, [tool, join(folder, "src"), join(folder, "dist")]);
  const left = await readdir(folder, { recursive: true });
  expect(left.sort()).toEqual([...kept, "src", "src/part", "dist", "dist/part"].sort());
});
