// Compiles kernels/level.c to WebAssembly with LLVM from npm (@yowasp/clang), so that building needs nothing but Node: for
// threads over shared memory and for one thread, with and without the instructions of relaxed SIMD. What is there already from the same
// sources, script and compiler is kept: npm ci and npm test each build.

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { runClang, runLLVM } from "@yowasp/clang";

const root = fileURLToPath(new URL("../", import.meta.url));
const exported = ["run_pass", "kernel_names", "function_names", "__stack_pointer", "__heap_base"];
const shared = ["-matomics", "-Wl,--shared-memory", "-Wl,--max-memory=4294967296"];
const relaxed = ["-mrelaxed-simd"];
// What a page downloads to generate has none of the kernels of training and of the lab.
const generation = ["-DONLY_GENERATION"];
const builds = {
  "kernels.wasm": [...generation, ...shared],
  "kernels-relaxed.wasm": [...generation, ...shared, ...relaxed],
  "kernels-single.wasm": generation,
  "kernels-single-relaxed.wasm": [...generation, ...relaxed],
  "training.wasm": shared,
  "training-single.wasm": [],
};

/** The sources, folders as objects in objects. */
async function sourcesIn(folder) {
  const sources = {};
  for (const entry of (await readdir(folder, { withFileTypes: true })).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) sources[entry.name] = await sourcesIn(path);
    else if (/\.(c|h|def)$/.test(entry.name)) sources[entry.name] = await readFile(path, "utf8");
  }
  return sources;
}

const files = await sourcesIn(`${root}kernels`);

const hash = createHash("sha256")
  .update(JSON.stringify(files))
  .update(await readFile(fileURLToPath(import.meta.url)));
hash.update(await readFile(`${root}node_modules/@yowasp/clang/package.json`));
const stamp = hash.digest("hex");
const stampFile = `${root}dist/kernels-sources.txt`;
const isThere = Object.keys(builds).every((target) => existsSync(`${root}dist/${target}`));
if (isThere && (await readFile(stampFile, "utf8").catch(() => "")) === stamp) process.exit();

await runLLVM(null, {}, { fetchProgress: () => {} }); // loads the compiler without a word on the terminal
await mkdir(`${root}dist`, { recursive: true });
for (const [target, flags] of Object.entries(builds)) {
  const errors = [];
  const decoder = new TextDecoder();
  const output = await runClang(
    [
      "clang",
      "--target=wasm32",
      "-std=gnu17",
      "-O3",
      "-ffreestanding",
      "-nostdlib",
      "-fno-math-errno",
      "-msimd128",
      "-mbulk-memory",
      "-mmutable-globals",
      "-Wall",
      "-Wextra",
      "-I.",
      // The guard below each stack catches frames of at most this size (src/backends/wasm/kernel-stack.ts).
      "-Wframe-larger-than=163840",
      "-Werror=frame-larger-than=",
      "-Wl,--no-entry",
      "-Wl,--import-memory",
      ...flags,
      ...exported.map((name) => `-Wl,--export=${name}`),
      "-o",
      target,
      "level.c",
    ],
    files,
    { stderr: (bytes) => bytes && errors.push(decoder.decode(bytes)) },
  ).catch((error) => {
    process.stderr.write(errors.join(""));
    throw error;
  });
  process.stderr.write(errors.join(""));
  await writeFile(`${root}dist/${target}`, output[target]);
  process.stdout.write(`dist/${target}: ${output[target].length} bytes\n`);
}
await writeFile(stampFile, stamp);
