// How many lines a second `rwkv batch` does, against the same requests sent to `rwkv serve` one after the other.
//   node bench/batch-speed.mjs [lines, by default 400] [model, by default that in the package]
// Needs the build in dist/. Prompts of a few tokens, 32 tokens of each answer.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const count = Number(process.argv[2] ?? 400);
const model = process.argv[3] === undefined ? [] : ["--model", process.argv[3]];
const program = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
const folder = await mkdtemp(join(tmpdir(), "rwkv-batch-"));
const requests = Array.from({ length: count }, (_, i) => ({
  prompt: `Tale ${i}: Once upon a time`,
  max_tokens: 32,
  seed: i,
  logit_bias: { 0: -100 },
}));
const [input, output] = [join(folder, "in.jsonl"), join(folder, "out.jsonl")];
await writeFile(input, requests.map((request) => `${JSON.stringify(request)}\n`).join(""));

const batch = spawn(process.execPath, [program, "batch", input, output, ...model], {
  stdio: ["ignore", "ignore", "pipe"],
});
let said = "";
batch.stderr.on("data", (text) => {
  said += text;
});
await once(batch, "exit");
const texts = (await readFile(output, "utf8"))
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line).text);
const batchSpeed = Number(/\(([\d.]+) lines\/s/.exec(said)?.[1]);

const server = spawn(process.execPath, [program, "serve", "--port", "0", ...model], {
  stdio: ["ignore", "ignore", "pipe"],
});
process.on("exit", () => server.kill("SIGKILL"));
// It is read on: a server whose errors nobody takes any more ends.
const url = await new Promise((resolve) => {
  let shown = "";
  server.stderr.on("data", (text) => {
    shown += text;
    const [, found] = /at (http:\S+)\n/.exec(shown) ?? [];
    if (found) resolve(found);
  });
});
const some = Math.min(count, 60);
const started = performance.now();
for (let i = 0; i < some; i++) {
  const answer = await fetch(`${url}/v1/completions`, {
    method: "POST",
    body: JSON.stringify(requests[i]),
    headers: { "Content-Type": "application/json" },
  });
  if ((await answer.json()).choices[0].text !== texts[i]) throw new Error(`line ${i + 1}: another text`);
}
const httpSpeed = (some * 1000) / (performance.now() - started);
server.kill("SIGKILL");
await rm(folder, { recursive: true });
console.log(
  `rwkv batch: ${batchSpeed} lines/s; one after the other over HTTP: ${httpSpeed.toFixed(1)} lines/s; ${(batchSpeed / httpSpeed).toFixed(1)} times`,
);
