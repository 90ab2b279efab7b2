// Compiles kernels/level.c to WebAssembly with LLVM from npm (@yowasp/clang), so that building needs nothing but Node: for
// threads over shared memory and for one thread, with and without the instructions of relaxed SIMD; those of training, which are
// seldom used in pages, without. Several are compiled at a time, each in a worker. What is there already from the same sources,
// script and compiler is kept: npm ci and npm test each build.

import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { runClang, runLLVM } from "@yowasp/clang";

const root = fileURLToPath(new URL("../", import.meta.url));
const exported = ["run_pass", "kernel_names", "function_names", "__stack_pointer", "__heap_base"];
const shared = ["-matomics", "-Wl,--shared-memory", "-Wl,--max-memory=4294967296"];
const relaxed = ["-mrelaxed-simd"];
// What a page downloads to generate has none of the kernels of training and of the lab.
const generation = ["-DONLY_GENERATION"];
/** The largest first, so that none is left to one compiler at the end. */
const builds = {
  "training.wasm": shared,
  "training-single.wasm": [],
  "kernels.wasm": [...generation, ...shared],
  "kernels-relaxed.wasm": [...generation, ...shared, ...relaxed],
  "kernels-single.wasm": generation,
  "kernels-single-relaxed.wasm": [...generation, ...relaxed],
};

/** Compilers that run at a time; each takes several hundred megabytes. */
const mostCompilers = 4;

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

/** Compiles one target. What the compiler says goes to the terminal; an error of it rejects. */
async function compile(target, files) {
  const errors = [];
  const decoder = new TextDecoder();
  try {
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
        ...builds[target],
        ...exported.map((name) => `-Wl,--export=${name}`),
        "-o",
        target,
        "level.c",
      ],
      files,
      { stderr: (bytes) => bytes && errors.push(decoder.decode(bytes)) },
    );
    await writeFile(`${root}dist/${target}`, output[target]);
    return output[target].length;
  } finally {
    process.stderr.write(errors.join(""));
  }
}

if (!isMainThread) {
  await runLLVM(null, {}, { fetchProgress: () => {} }); // loads the compiler without a word on the terminal
  parentPort.on("message", async (target) => void parentPort.postMessage(await compile(target, workerData)));
} else await build();

async function build() {
  const files = await sourcesIn(`${root}kernels`);

  const hash = createHash("sha256")
    .update(JSON.stringify(files))
    .update(await readFile(fileURLToPath(import.meta.url)));
  hash.update(await readFile(`${root}node_modules/@yowasp/clang/package.json`));
  const stamp = hash.digest("hex");
  const stampFile = `${root}dist/kernels-sources.txt`;
  const isThere = Object.keys(builds).every((target) => existsSync(`${root}dist/${target}`));
  if (isThere && (await readFile(stampFile, "utf8").catch(() => "")) === stamp) return;

  await mkdir(`${root}dist`, { recursive: true });
  const targets = Object.keys(builds);
  const compilers = Array.from(
    { length: Math.min(availableParallelism(), targets.length, mostCompilers) },
    async () => {
      const worker = new Worker(new URL(import.meta.url), { workerData: files });
      try {
        for (let target = targets.shift(); target !== undefined; target = targets.shift()) {
          worker.postMessage(target);
          const [size] = await once(worker, "message");
          process.stdout.write(`dist/${target}: ${size} bytes\n`);
        }
      } finally {
        await worker.terminate();
      }
    },
  );
  await Promise.all(compilers);
  await writeFile(stampFile, stamp);
}
