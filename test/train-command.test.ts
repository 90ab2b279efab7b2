// rwkv train, run as a program: killed and gone on with, interrupted, configured by a file, exported for PyTorch.

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { load, openCheckpoint } from "rwkv";
import { beforeEach, expect, test } from "vitest";
import { temporaryFolder } from "./fixture-files.js";

const program = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
const small = ["--layers", "2", "--width", "16", "--vocab", "280", "--context", "16", "--batch", "4", "--lr", "0.01"];

let folder = "";
let data = "";
beforeEach(async () => {
  folder = await temporaryFolder();
  data = join(folder, "tale.txt");
  const lines = Array.from({ length: 400 }, (_, i) => `Once there were ${i} geese, and ${i % 7} of them could sing.`);
  await writeFile(data, lines.join("\n"));
});

interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

function start(args: readonly string[], onOutput?: (child: ChildProcess, stderr: string) => void): Promise<Outcome> {
  return rwkv(["train", ...args], onOutput);
}

function rwkv(args: readonly string[], onOutput?: (child: ChildProcess, stderr: string) => void): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [program, ...args]);
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (part) => {
      stdout += part;
    });
    child.stderr.on("data", (part) => {
      stderr += part;
      onOutput?.(child, stderr);
    });
    child.on("close", (code) => resolve({ code, stdout, stderr }));
  });
}

test("goes on to the same bits after kill -9", async () => {
  const common = ["--data", data, ...small, "--steps", "60", "--save-every", "2", "--validate-every", "9"];
  const whole = await start([...common, "--out", join(folder, "whole")]);
  expect(whole.code, whole.stderr).toBe(0);
  expect(whole.stderr).toMatch(/60 of 60 steps in .*: loss [\d.]+, [\d.]+ bits per byte held out/);
  const killed = join(folder, "killed");
  const saved = join(killed, "checkpoint.safetensors");
  const stopped = start([...common, "--out", killed], (child) => {
    // At whatever moment this is, once there is something to go on with.
    if (existsSync(saved)) setTimeout(() => child.kill("SIGKILL"), 40);
  });
  expect((await stopped).code).toBe(null);
  const resumed = await start(["--data", data, "--out", killed, "--resume"]);
  expect(resumed.code, resumed.stderr).toBe(0);
  for (const name of ["model.safetensors", "tokenizer.json", "training.json"]) {
    expect(readFileSync(join(killed, name)), name).toEqual(readFileSync(join(folder, "whole", name)));
  }
});

test("Ctrl-C saves and stops; what is saved generates and goes on", async () => {
  const out = join(folder, "run");
  let interrupted = false;
  const outcome = await start(["--data", data, ...small, "--steps", "100000", "--out", out], (child, stderr) => {
    if (!interrupted && stderr.includes("step 1 of")) child.kill("SIGINT");
    interrupted ||= stderr.includes("step 1 of");
  });
  expect(outcome.code).toBe(130);
  expect(outcome.stderr).toContain("stopped; go on with: rwkv train");
  const step = Number(/(\d+) of 100000 steps/.exec(outcome.stderr)?.[1]);
  const checkpoint = await openCheckpoint(join(out, "checkpoint.safetensors"));
  expect(checkpoint.tensors.has("first/blocks.1.ffn.key.weight")).toBe(true);
  await checkpoint.close();
  const log = readFileSync(join(out, "log.jsonl"), "utf8").trim().split("\n");
  expect(log.length).toBe(step);
  const model = await load(out);
  expect((await model.generate("Once", { maxTokens: 5, seed: 1 }).text()).length).toBeGreaterThan(0);
  await model.dispose();
});

test("takes options from a file, shows a sample, and exports a .pth", async () => {
  const config = join(folder, "config.json");
  const options = { data, layers: 1, width: 16, vocab: 280, context: 16, batch: 2, steps: 4, "save-every": 2 };
  await writeFile(config, JSON.stringify({ ...options, "sample-every": 1 }));
  const out = join(folder, "exported.pth");
  const { code, stderr } = await start(["--config", config, "--out", out, "--steps", "6", "--dtype", "bf16"]);
  expect(code, stderr).toBe(0);
  expect(stderr).toContain("--- step 2\n");
  expect(stderr).toContain("6 of 6 steps");
  const checkpoint = await openCheckpoint(out);
  expect(checkpoint.format).toBe("pth");
  expect(checkpoint.tensors.get("blocks.0.att.time_mix_k")).toMatchObject({ shape: [1, 1, 16], dtype: "bf16" });
  await checkpoint.close();
  const recipe = JSON.parse(readFileSync(join(folder, "exported", "training.json"), "utf8"));
  expect(recipe).toMatchObject({ layers: 1, width: 16, steps: 6, batch: 2 });
});

test("a tuned state is what generating begins with", async () => {
  const [base, tuned] = [join(folder, "base"), join(folder, "tuned")];
  await start(["--data", data, ...small, "--steps", "20", "--out", base]);
  const flags = ["--data", data, "--from", base, "--context", "16", "--batch", "4"];
  const { code, stderr } = await start([...flags, "--tune-state", "--lr", "0.3", "--steps", "20", "--out", tuned]);
  expect(code, stderr).toBe(0);
  const generate = ["generate", "Once", "--trials", "1", "-n", "40", "--seed", "1"];
  const plain = await rwkv([...generate, "--model", base]);
  const from = await rwkv([...generate, "--model", base, "--state", join(tuned, "state.rwkv")]);
  const same = await rwkv([...generate, "--model", tuned, "--state", join(tuned, "state.rwkv")]);
  expect(from.code, from.stderr).toBe(0);
  expect(from.stdout).not.toBe(plain.stdout);
  expect(same.stdout).toBe(from.stdout);
});

test("says in a line what is wrong", async () => {
  await mkdir(join(folder, "folder"));
  await writeFile(join(folder, "unknown.json"), '{"learning-speed": 3}');
  for (const [args, message] of [
    [["--data", data], /expected --data and --out/],
    [["--data", join(folder, "folder"), "--out", join(folder, "x")], /expected .txt, .md, .jsonl or .json files/],
    [["--data", data, "--out", join(folder, "x"), "--steps", "5", "--epochs", "2"], /cannot be used with/],
    [["--data", data, "--out", join(folder, "x"), "--vocab", "12"], /expected a whole number >= 257/],
    [["--data", data, "--out", join(folder, "x"), "--config", data], /expected a JSON file with options/],
    [["--config", join(folder, "unknown.json")], /expected options of rwkv train, found "learningSpeed"/],
    [["--data", data, "--out", join(data, "x")], /the folder cannot be made/],
  ] as const) {
    const { code, stderr, stdout } = await start(args);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toMatch(message);
    expect(stderr).not.toContain("    at ");
  }
});
