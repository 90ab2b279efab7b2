// Builds the native library for the platforms that the package ships it for, into prebuilt/, and checks that it will load on
// old systems. Runs when the package is packed (prepack); what cannot be built for want of a compiler is left out, with a line that
// says so. With --all, as before publishing, that is an error. Further arguments name the platforms to build for.
//
// Needs a GCC for each (Debian: gcc and gcc-aarch64-linux-gnu with libc6-dev-arm64-cross) and their binutils.

import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, rename, rm, stat } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { findCompiler } from "../dist/backends/native/compiler.js";
import { buildLibrary, libraryStamp, prebuiltName, prebuiltRecipe } from "../dist/backends/native/library-build.js";
import { checkLibrary } from "./check-library.mjs";

const platforms = {
  "linux-x64": { architecture: "x64", tools: "x86_64-linux-gnu-", debian: "gcc" },
  "linux-arm64": {
    architecture: "arm64",
    tools: "aarch64-linux-gnu-",
    debian: "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
  },
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

async function build(name, { architecture, tools, debian }) {
  const recipe = prebuiltRecipe(architecture);
  const file = prebuiltName("linux", architecture, await libraryStamp(recipe));
  const path = `${folder}/${file}`;
  if (!existsSync(path)) {
    const compiler = await findCompiler(`${tools}gcc`);
    if (!compiler) {
      process.stderr.write(
        `prebuilt kernels for ${name}: LEFT OUT, there is no ${tools}gcc on this machine (Debian: apt-get install ${debian}); ` +
          "without them the package compiles its kernels on first use there\n",
      );
      return false;
    }
    // Under its name it must never be there unchecked.
    const unchecked = `${folder}/kernels-${name}.unchecked`;
    await buildLibrary(unchecked, compiler, recipe);
    checkLibrary(
      execFileSync(`${tools}readelf`, ["--wide", "--dyn-syms", "--dynamic", unchecked], { encoding: "utf8" }),
      name,
    );
    await removeOthers(name);
    await rename(unchecked, path);
  }
  process.stdout.write(`prebuilt kernels for ${name}: ${file}, ${(await stat(path)).size} bytes\n`);
  return true;
}

/** Those of earlier sources. */
async function removeOthers(name) {
  const { readdir } = await import("node:fs/promises");
  for (const file of await readdir(folder)) {
    if (file.startsWith(`${name}-`)) await rm(`${folder}/${file}`);
  }
}
