// RWKV-7 files with random weights for the benchmarks, all types from the same weights.

import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { syntheticCheckpoint } from "../dist/bench/synthetic-checkpoint.js";
import { readRange } from "../dist/byte-source.js";
import { shape } from "../dist/cli/option-parsers.js";
import { writePth } from "../dist/index.js";

const command = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));

/** The checkpoint as PyTorch would write it, in bfloat16, of a size such as 12x768 and the World vocabulary; made unless it is there. */
export async function randomPth(folder, size) {
  const path = join(folder, `rwkv7-${size}.pth`);
  if (existsSync(path)) return path;
  const { tensors } = syntheticCheckpoint(shape(`7:${size}x65536`), "bf16");
  const written = [...tensors.values()].map(({ name, source, offset, shape }) => {
    const length = shape.reduce((product, one) => product * one, 2);
    const bytes = async function* () {
      yield await readRange(source, offset, length);
    };
    return { name, dtype: "bf16", shape, bytes };
  });
  await writePth(path, written);
  return path;
}

/** GGUF files of it, one a type as llama.cpp names them; a file that is there is not made again. */
export async function randomGgufs(folder, size, types) {
  const paths = types.map((type) => join(folder, `rwkv7-${size}-${type}.gguf`));
  if (paths.every((path) => existsSync(path))) return paths;
  const pth = await randomPth(folder, size);
  for (const [i, path] of paths.entries()) {
    if (existsSync(path)) continue;
    const dtype = types[i].startsWith("Q") ? types[i] : types[i].toLowerCase();
    const stdio = ["ignore", "ignore", "inherit"];
    execFileSync(process.execPath, [command, "convert", pth, path, "--dtype", dtype], { stdio });
  }
  return paths;
}
