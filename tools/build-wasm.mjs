// Compiles kernels/level.c to WebAssembly with LLVM from npm (@yowasp/clang), so that building needs nothing but Node: for
// threads over shared memory and for one thread, with and without the instructions of relaxed SIMD. What is there already from the same
// sources, script and compiler is kept: npm ci and npm test each build.

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { runClang, runLLVM } from "@yowasp/clang";

const root = fileURLToPath(new URL("../", import.meta.url));
const exported = ["run_pass", "__stack_pointer", "__heap_base"];
const shared = ["-matomics", "-Wl,--shared-memory", "-Wl,--max-memory=4294967296"];
const relaxed = ["-mrelaxed-simd"];
const builds = {
  "kernels.wasm": shared,
  "kernels-relaxed.wasm": [...shared, ...relaxed],
  "kernels-single.wasm": [],
  "kernels-single-relaxed.wasm": relaxed,
};

const names = (await readdir(`${root}kernels`)).filter((name) => /\.[ch]$/.test(name)).sort();
const files = {};
for (const name of names) files[name] = await readFile(`${root}kernels/${name}`, "utf8");

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
