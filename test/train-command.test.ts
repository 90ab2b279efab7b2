// rwkv train, run as a program: killed and resumed, interrupted, configured by a file, exported for PyTorch.

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { load, openCheckpoint } from "rwkv";
import { beforeEach, expect, test } from "vitest";
import { temporaryFolder } from "./fixture-files.js";

const program = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
const embedded = fileURLToPath(new URL("../embedded/", import.meta.url));
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

type OnOutput = (child: ChildProcess, stderr: string) => void;

function start(
  args: readonly string[],
  onOutput?: OnOutput,
  onStart?: (child: ChildProcess) => void,
  cwd?: string,
): Promise<Outcome> {
  return rwkv(["train", ...args], onOutput, onStart, cwd);
}

function rwkv(
  args: readonly string[],
  onOutput?: OnOutput,
  onStart?: (child: ChildProcess) => void,
  cwd = folder,
): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [program, ...args], { cwd });
    onStart?.(child);
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

test("resumes to the same bits after kill -9 at any moment", async () => {
  const common = ["--data", data, ...small, "--steps", "40", "--save-every", "2", "--validate-every", "9"];
  const whole = await start([...common, "--out", join(folder, "whole")]);
  expect(whole.code, whole.stderr).toBe(0);
  expect(whole.stderr).toMatch(/40 of 40 steps in .*: loss [\d.]+, [\d.]+ bits per byte held out/);
  const killed = join(folder, "killed");
  const next = () => {
    // A run can be resumed once its recipe is there.
    const begun = existsSync(join(killed, "training.json"));
    return begun ? ["--data", data, "--out", killed, "--resume"] : [...common, "--out", killed];
  };
  for (let kills = 0; kills < 4; kills++) {
    const saved = existsSync(join(killed, "checkpoint.safetensors"));
    const outcome = await start(next(), undefined, (child) => {
      // Half of them before or in the first save, the others while it goes on.
      const watched = join(killed, saved ? "checkpoint.safetensors" : "training.json");
      const kill = () => setTimeout(() => child.kill("SIGKILL"), Math.random() * 150);
      if (saved || kills < 2) setTimeout(kill, 200 + Math.random() * 400);
      else {
        const watch = setInterval(() => {
          if (!existsSync(watched)) return;
          clearInterval(watch);
          kill();
        }, 5);
        child.on("close", () => clearInterval(watch));
      }
    });
    expect([null, 0], outcome.stderr).toContain(outcome.code);
  }
  const resumed = await start(next());
  expect(resumed.code, resumed.stderr).toBe(0);
  for (const name of ["model.safetensors", "tokenizer.json", "training.json"]) {
    expect(readFileSync(join(killed, name)), name).toEqual(readFileSync(join(folder, "whole", name)));
  }
  // What was being written when a process was killed is gone.
  expect(readdirSync(killed).sort()).toEqual(readdirSync(join(folder, "whole")).sort());
}, 180_000);

test("Ctrl-C before the first step ends at once, and leaves nothing behind", async () => {
  const words = Array.from({ length: 300_000 }, (_, i) => ((i * 2654435761) % 2 ** 32).toString(36));
  await writeFile(join(folder, "many.txt"), words.join(" "));
  const out = join(folder, "interrupted");
  const args = ["--data", join(folder, "many.txt"), ...small, "--vocab", "30000", "--out", out];
  let interrupted = false;
  const outcome = await start(args, (child, stderr) => {
    if (!interrupted && stderr.includes("training a tokenizer")) child.kill("SIGINT");
    interrupted ||= stderr.includes("training a tokenizer");
  });
  expect(outcome.code, outcome.stderr).toBe(130);
  expect(outcome.stderr).toContain("stopped before the first step; nothing was saved");
  expect(outcome.stderr).not.toContain("tokens to learn from");
  expect(existsSync(out)).toBe(false);
});

test("is resumed from another working directory", async () => {
  const from = (cwd: string, ...args: string[]) => start(args, undefined, undefined, cwd);
  const base = ["--data", "tale.txt", ...small, "--steps", "2", "--out", "base"];
  expect((await from(folder, ...base)).code).toBe(0);
  const tuned = [
    "--data",
    "tale.txt",
    "--from",
    "base",
    "--tokenizer",
    "base",
    "--lora",
    "--lora-rank",
    "2",
    "--out",
    "run",
  ];
  const sizes = ["--context", "16", "--batch", "2", "--steps", "3"];
  expect((await from(folder, ...tuned, ...sizes)).code).toBe(0);
  await mkdir(join(folder, "below"));
  const resumed = await from(
    join(folder, "below"),
    "--data",
    "../tale.txt",
    "--out",
    "../run",
    "--resume",
    "--lora",
    "--steps",
    "6",
  );
  expect(resumed.code, resumed.stderr).toBe(0);
  expect(resumed.stderr).toContain("6 of 6 steps");
});

test("Ctrl-C saves and stops; the saved run generates and can be resumed", async () => {
  const out = join(folder, "run");
  let second: Promise<Outcome> | undefined;
  const outcome = await start(["--data", data, ...small, "--steps", "100000", "--out", out], (child, stderr) => {
    if (second || !stderr.includes("step 1 of")) return;
    second = start(["--data", data, "--out", out, "--resume"]);
    void second.then(() => child.kill("SIGINT"));
  });
  // Meanwhile the folder was nobody else's.
  expect((await second)?.stderr).toMatch(/error: .*run: expected a folder that no run is using/);
  expect(outcome.code).toBe(130);
  expect(outcome.stderr).toContain("stopped; continue with: rwkv train");
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

test("takes options from a file, shows a sample, and exports a .pth that generates at once", async () => {
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
  expect(checkpoint.tensors.get("blocks.0.att.x_k")).toMatchObject({ shape: [1, 1, 16], dtype: "bf16" });
  await checkpoint.close();
  const recipe = JSON.parse(readFileSync(join(folder, "exported", "training.json"), "utf8"));
  expect(recipe).toMatchObject({ layers: 1, width: 16, steps: 6, batch: 2 });
  const generate = ["generate", "Once", "--trials", "1", "-n", "10", "--seed", "1"];
  const fromFile = await rwkv([...generate, "--model", out]);
  expect(fromFile.code, fromFile.stderr).toBe(0);
  expect(fromFile.stdout).toBe((await rwkv([...generate, "--model", join(folder, "exported")])).stdout);
});

test("a name that ends in .safetensors is a file, too", async () => {
  const out = join(folder, "named.safetensors");
  const { code, stderr } = await start([
    "--data",
    data,
    ...small,
    "--steps",
    "2",
    "--out",
    out,
    "--tokenizer",
    "bytes",
  ]);
  expect(code, stderr).toBe(0);
  expect(readFileSync(out).equals(readFileSync(join(folder, "named", "model.safetensors")))).toBe(true);
});

test("says how to generate after training on bytes, and shows samples of it", async () => {
  const out = join(folder, "run");
  await start(["--data", data, ...small, "--steps", "1", "--out", join(folder, "base")]);
  const tuned = ["--data", data, "--from", join(folder, "base"), "--tokenizer", "bytes", "--steps", "2", "--out", out];
  const sizes = ["--context", "16", "--batch", "2", "--save-every", "1", "--sample-every", "1"];
  const { code, stderr } = await start([...tuned, ...sizes]);
  expect(code, stderr).toBe(0);
  expect(stderr).toContain("--- step 1\n");
  const advice = /the model: rwkv (generate --model .*)$/m.exec(stderr)?.[1]?.split(" ") ?? [];
  const generated = await rwkv([...advice, "Once", "--trials", "1", "-n", "2"]);
  expect(generated.code, generated.stderr).toBe(0);
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

test("reports errors in one line", async () => {
  await mkdir(join(folder, "folder"));
  const configs = {
    unknown: { "learning-speed": 3 },
    text: { layers: "many" },
    flag: { resume: "yes" },
    list: { prompt: { a: 1 } },
  };
  for (const [name, config] of Object.entries(configs)) {
    await writeFile(join(folder, `${name}.json`), JSON.stringify(config));
  }
  for (const [args, message] of [
    [["--data", data], /expected --data and --out/],
    [["--data", join(folder, "folder"), "--out", join(folder, "x")], /expected .txt, .md, .jsonl or .json files/],
    [["--data", data, "--out", join(folder, "x"), "--steps", "5", "--epochs", "2"], /cannot be used with/],
    [["--data", data, "--out", join(folder, "x"), "--vocab", "12"], /expected a whole number >= 257/],
    [["--data", data, "--out", join(folder, "x"), "--config", data], /expected a JSON file with options/],
    [["--config", join(folder, "unknown.json")], /expected options of rwkv train, found "learning-speed"/],
    [["--config", join(folder, "text.json")], /text.json: layers: expected a whole number >= 1, found "many"/],
    [["--config", join(folder, "flag.json")], /flag.json: resume: expected true or false, found "yes"/],
    [["--config", join(folder, "list.json")], /list.json: prompt: expected a number or a string, found {"a":1}/],
    [["--data", data, "--out", join(data, "x")], /the folder cannot be made/],
    [
      ["--data", data, "--out", join(folder, "x"), "--lora-rank", "4"],
      /--lora-rank, --lora-alpha and --lora-matrices need --lora/,
    ],
    [
      [
        "--data",
        data,
        "--out",
        join(folder, "x"),
        "--from",
        embedded,
        "--lora",
        "--lora-matrices",
        "att.key,attention.key",
      ],
      /option lora.matrices: expected some of att.key, .*ffn.value.*, found "attention.key"/,
    ],
    [["--data", data, "--out", join(folder, "x"), "--resume"], /expected the training.json of a run to resume/],
  ] as const) {
    const { code, stderr, stdout } = await start(args);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toMatch(message);
    expect(stderr).not.toContain("    at ");
  }
});
