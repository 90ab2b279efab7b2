// Builds the native library for the platforms that the package ships it for, into prebuilt/, and checks that it will load on
// old systems. Runs when the package is packed (prepack); what cannot be built for want of a compiler is left out, with a line
// that says so. With --all, as before publishing, that is an error. Further arguments name the platforms to build for.
//
// Needs a GCC for each, and its binutils; Debian has them for all.

import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { findCompiler } from "../dist/backends/native/compiler.js";
import { buildLibrary, libraryStamp, prebuiltName, prebuiltRecipe } from "../dist/backends/native/library-build.js";
import { checkLibrary } from "./check-library.mjs";

const platforms = {
  "linux-x64": { tools: "x86_64-linux-gnu-", debian: "gcc" },
  "linux-arm64": { tools: "aarch64-linux-gnu-", debian: "gcc-aarch64-linux-gnu libc6-dev-arm64-cross" },
  "win32-x64": { tools: "x86_64-w64-mingw32-", debian: "gcc-mingw-w64-x86-64" },
};

const { values, positionals } = parseArgs({
  options: { all: { type: "boolean" }, out: { type: "string" } },
  allowPositionals: true,
});
const folder = values.out ?? fileURLToPath(new URL("../prebuilt/", import.meta.url));
const wanted = positionals.length > 0 ? positionals : Object.keys(platforms);
await mkdir(folder, { recursive: true });
let missing = 0;
for (const name of wanted) {
  const platform = platforms[name];
  if (!platform) throw new Error(`expected ${Object.keys(platforms).join(" or ")}, found ${name}`);
  missing += (await build(name, platform)) ? 0 : 1;
}
if (missing > 0 && values.all) process.exit(1);

async function build(name, { tools, debian }) {
  const [system, architecture] = name.split("-");
  const recipe = prebuiltRecipe(system, architecture);
  const file = prebuiltName(system, architecture, await libraryStamp(recipe));
  const path = join(folder, file);
  if (!existsSync(path)) {
    const compiler = await findCompiler(`${tools}gcc`);
    if (!compiler) {
      process.stderr.write(
        `prebuilt kernels for ${name}: LEFT OUT, there is no ${tools}gcc on this machine (Debian: apt-get install ` +
          `${debian}); without them the package compiles its kernels on first use there, or runs WebAssembly\n`,
      );
      return false;
    }
    const temporary = await mkdtemp(join(tmpdir(), "rwkv-prebuilt-"));
    try {
      if (system === "win32") await makeImportLibrary(join(temporary, "libnode.a"), tools);
      const linking = { ...compiler, arguments: [`-L${temporary}`] };
      const unchecked = await buildLibrary(temporary, () => file, linking, recipe);
      if (system === "linux") {
        const args = ["--wide", "--dyn-syms", "--dynamic", unchecked];
        checkLibrary(execFileSync(`${tools}readelf`, args, { encoding: "utf8" }), name);
      }
      await removeOthers(name);
      await copyFile(unchecked, `${path}.part`); // the temporary folder may be on another disk
      await rename(`${path}.part`, path);
    } finally {
      await rm(temporary, { recursive: true });
    }
  }
  process.stdout.write(`prebuilt kernels for ${name}: ${file}, ${(await stat(path)).size} bytes\n`);
  return true;
}

/** What the linker needs to know of node.exe: the functions of Node-API that kernels/addon.c declares, and one of libuv. */
async function makeImportLibrary(path, tools) {
  const declarations = await readFile(new URL("../kernels/node_api_subset.h", import.meta.url), "utf8");
  const functions = [...declarations.matchAll(/^napi_status (\w+)\(/gm)].map(([, name]) => name);
  await writeFile(`${path}.def`, ["LIBRARY node.exe", "EXPORTS", ...functions, "uv_get_osfhandle", ""].join("\n"));
  execFileSync(`${tools}dlltool`, ["-d", `${path}.def`, "-l", path]);
}

/** Removes those of earlier sources. */
async function removeOthers(name) {
  for (const file of await readdir(folder)) {
    if (file.startsWith(`${name}-`)) await rm(join(folder, file));
  }
}
