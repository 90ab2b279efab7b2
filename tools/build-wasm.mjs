// Compiles kernels/*.c to dist/kernels.wasm with LLVM from npm (@yowasp/clang), so that building needs nothing but Node.

import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { runClang, runLLVM } from "@yowasp/clang";

const root = fileURLToPath(new URL("../", import.meta.url));
const nativeOnly = new Set(["native.c"]);
const exported = ["run_pass", "__stack_pointer", "__heap_base"];

const names = (await readdir(`${root}kernels`)).filter((name) => /\.[ch]$/.test(name) && !nativeOnly.has(name)).sort();
const files = {};
for (const name of names) files[name] = await readFile(`${root}kernels/${name}`, "utf8");

await runLLVM(null, {}, { fetchProgress: () => {} }); // loads the compiler without a word on the terminal
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
    "-msimd128",
    "-matomics",
    "-mbulk-memory",
    "-mmutable-globals",
    "-Wall",
    "-Wextra",
    "-Wl,--no-entry",
    "-Wl,--import-memory",
    "-Wl,--shared-memory",
    "-Wl,--max-memory=4294967296",
    ...exported.map((name) => `-Wl,--export=${name}`),
    "-o",
    "kernels.wasm",
    "level.c",
  ],
  files,
  { stderr: (bytes) => bytes && errors.push(decoder.decode(bytes)) },
).catch((error) => {
  process.stderr.write(errors.join(""));
  throw error;
});
process.stderr.write(errors.join(""));
await mkdir(`${root}dist`, { recursive: true });
await writeFile(`${root}dist/kernels.wasm`, output["kernels.wasm"]);
process.stdout.write(`dist/kernels.wasm: ${output["kernels.wasm"].length} bytes\n`);
