// Architectures trained side by side: as many weights, the same tokens, and each learns.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { architectures } from "#rwkv/lab/architectures/index";
import type { ReportFigures } from "#rwkv/lab/report-figures";
import { temporaryFolder } from "./fixture-files.js";

const program = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));

test("rwkv lab train: all learn, with the same budget", async () => {
  const folder = await temporaryFolder();
  const data = join(folder, "text.txt");
  const lines = Array.from({ length: 300 }, (_, i) => `The ${["cat", "dog", "fox"][i % 3]} counted ${i % 10} geese.`);
  await writeFile(data, lines.join("\n"));
  const size = ["--layers", "1", "--width", "32", "--heads", "2", "--vocab", "280", "--context", "16", "--batch", "4"];
  const args = ["lab", "train", "--data", data, ...size, "--steps", "40", "--out", folder];
  const stdout = execFileSync(process.execPath, [program, ...args], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
  const train = JSON.parse(readFileSync(join(folder, "train.json"), "utf8")) as ReportFigures["train"];
  expect(train.setup).toMatchObject({ text: data, layers: 1, width: 32, context: 16, batch: 4, steps: 40 });
  expect(Object.keys(train.results)).toEqual(architectures.map(({ name }) => name));
  const budget = train.results["rwkv4"]!.parameters;
  for (const [name, { parameters, points, tokens_per_second: speed }] of Object.entries(train.results)) {
    expect(Math.abs(parameters / budget - 1), name).toBeLessThan(0.03);
    expect(points.map(({ tokens }) => tokens)).toEqual(Array.from({ length: 10 }, (_, i) => (i + 1) * 4 * 64));
    expect(points.at(-1)!.bits_per_byte, name).toBeLessThan(0.7 * points[0]!.bits_per_byte);
    expect(speed).toBeGreaterThan(0);
    expect(stdout).toContain(name);
  }
  const page = readFileSync(join(folder, "train.html"), "utf8");
  for (const { title } of architectures) expect(page).toContain(title);
});

test("what cannot be compared is refused, before anything is trained", async () => {
  const run = (...args: string[]) =>
    execFileSync(process.execPath, [program, "lab", "train", ...args], { encoding: "utf8", stdio: "pipe" });
  expect(() => run("--data", "/nowhere")).toThrow(/\/nowhere: cannot be read \(no such file or folder\)/);
  expect(() => run("--heads", "3")).toThrow(/--heads: expected a divisor of the width 128, found 3/);
  const data = join(await temporaryFolder(), "long.txt");
  await writeFile(data, "abcdefghijklmnopqrstuvwxyz".repeat(4000));
  const long = ["--data", data, "--context", "50000", "--batch", "1", "--vocab", "257"];
  // Biases for every pair of positions.
  expect(() => run(...long, "--architectures", "rnn,aft-full")).toThrow(
    /aft-full: training takes more than \d+\.\d GiB of memory, and this machine has/,
  );
});
