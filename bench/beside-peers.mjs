// Decoding and prompts of 512 tokens beside other programs, in turn, two threads each, of the same random weights of an RWKV-7 with the
// World vocabulary: llama.cpp and this package on the same GGUF files, rwkv.cpp on its own files of the same types, and the official
// Python package on the .pth. Prints a table of tokens a second, means over the rounds. Each peer that is named is measured.
//   node bench/beside-peers.mjs [--llama-bench PROGRAM] [--rwkv-cpp CLONE] [--official PACKAGE] [--size 12x768]
//                               [--types F16,Q8_0,Q4_0,Q4_K] [--rounds 2] [--models FOLDER] [--python /usr/bin/python3]
// Fetches nothing. Needs the build in dist/; llama-bench as llama.cpp builds it; rwkv.cpp's clone with build/librwkv.so
// (cmake -B build -DRWKV_BUILD_SHARED_LIBRARY=ON -DRWKV_STANDALONE=ON); PACKAGE is ChatRWKV's rwkv_pip_package/src. Both of these need
// Python with PyTorch. Files are made in the system's temporary folder and removed at the end; in a folder that is named they stay.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { randomGgufs, randomPth } from "./random-models.mjs";

const { values: options } = parseArgs({
  options: {
    "llama-bench": { type: "string" },
    "rwkv-cpp": { type: "string" },
    official: { type: "string" },
    size: { type: "string", default: "12x768" },
    types: { type: "string", default: "F16,Q8_0,Q4_0,Q4_K" },
    rounds: { type: "string", default: "2" },
    models: { type: "string" },
    python: { type: "string", default: "/usr/bin/python3" },
  },
});
const { size, python } = options;
const types = options.types.split(",");
const script = fileURLToPath(new URL("peer_speed.py", import.meta.url));
const command = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));

const folder = options.models ?? mkdtempSync(join(tmpdir(), "rwkv-peers-"));
if (!options.models) process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
mkdirSync(folder, { recursive: true });

const run = (program, ...args) => execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });

/** What the script in Python measures; the peers print lines of their own before. */
function peer(...args) {
  const lines = run(python, script, ...args).trim();
  return JSON.parse(lines.slice(lines.lastIndexOf("\n") + 1));
}

/** Of each file: what to call it, and the programs that are measured with it, each of which gives tokens a second. */
const rows = [];
const ggufs = await randomGgufs(folder, size, types);
const bins = options["rwkv-cpp"] ? await rwkvCppFiles(options["rwkv-cpp"]) : new Map();
for (const [i, type] of types.entries()) {
  const programs = {};
  if (options["llama-bench"]) programs["llama.cpp"] = () => llama(ggufs[i]);
  const bin = bins.get(type);
  if (bin) programs["rwkv.cpp"] = () => peer("rwkv.cpp", options["rwkv-cpp"], bin);
  programs.here = () => here(ggufs[i]);
  rows.push({ name: type, programs });
}
if (options.official) {
  const pth = await randomPth(folder, size);
  const official = (dtype) => () => peer("official", options.official, pth, dtype);
  rows.push({ name: "bf16 (.pth)", programs: { official: official("bf16"), here: () => here(pth, "bf16") } });
  rows.push({ name: "f32 (.pth)", programs: { official: official("fp32"), here: () => here(pth, "f32") } });
}

const columns = [...new Set(rows.flatMap(({ programs }) => Object.keys(programs)))];
const heads = ["decode", "prompt"].flatMap((what) => columns.map((name) => `${what}, ${name}`));
console.log(`| ${["file", ...heads, "GB/s read"].join(" | ")} |\n|${" --- |".repeat(heads.length + 2)}`);
for (const { name, programs } of rows) {
  const measured = Object.fromEntries(Object.keys(programs).map((program) => [program, []]));
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const [program, measure] of Object.entries(programs)) measured[program].push(measure());
  }
  const mean = (program, what) => {
    const all = measured[program]?.map((one) => one[what]);
    if (!all) return "";
    const value = all.reduce((sum, one) => sum + one, 0) / all.length;
    return value < 100 ? value.toFixed(1) : value.toFixed(0);
  };
  const cells = ["decode", "prompt"].flatMap((what) => columns.map((program) => mean(program, what)));
  console.log(`| ${[`${size} ${name}`, ...cells, mean("here", "bandwidth")].join(" | ")} |`);
}

function here(path, dtype) {
  const types = dtype ? ["--dtype", dtype] : [];
  const args = [command, "bench", "--model", path, ...types, "--threads", "2", "--rounds", "1", "--json"];
  const [measured] = JSON.parse(run(process.execPath, ...args));
  return { decode: measured.decode_tok_s, prompt: measured.prefill_tok_s, bandwidth: measured.read_gb_s };
}

function llama(path) {
  const args = ["-m", path, "-p", "512", "-n", "64", "-t", "2", "-r", "1", "-o", "json"];
  const [prompt, decode] = JSON.parse(run(options["llama-bench"], ...args));
  return { decode: decode.avg_ts, prompt: prompt.avg_ts };
}

/** Files of rwkv.cpp by their types, made by its own programs, which write no K types. */
async function rwkvCppFiles(clone) {
  const made = new Map(
    types.filter((type) => !type.includes("K")).map((type) => [type, join(folder, `rwkv7-${size}-${type}.bin`)]),
  );
  if ([...made.values()].every((path) => existsSync(path))) return made;
  const half = join(folder, `rwkv7-${size}-F16.bin`);
  run(python, join(clone, "python/convert_pytorch_to_ggml.py"), await randomPth(folder, size), half, "FP16");
  for (const [type, path] of made) if (path !== half) run(python, script, "quantize", clone, half, path, type);
  return made;
}
