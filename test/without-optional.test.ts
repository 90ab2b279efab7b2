// The package as `npm install rwkv` leaves it: without the optional libraries that draw, or speak to Redis.

import { cp, mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { runProgram } from "./command.js";
import { temporaryFolder } from "./fixture-files.js";

const root = fileURLToPath(new URL("../", import.meta.url));

/** Installs the build and its dependencies, and no others, into a folder. */
async function install(folder: string): Promise<string> {
  const modules = join(folder, "node_modules");
  for (const part of ["package.json", "dist", "kernels", "embedded"]) {
    await cp(join(root, part), join(modules, "rwkv", part), { recursive: true });
  }
  const { dependencies } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  for (const name of Object.keys(dependencies)) {
    await mkdir(dirname(join(modules, name)), { recursive: true });
    await symlink(join(root, "node_modules", name), join(modules, name));
  }
  return join(modules, "rwkv", "dist", "cli", "main.js");
}

test("without the libraries that draw, the lab says what to install first, and training leaves out the curve", async () => {
  const folder = await temporaryFolder();
  const program = await install(folder);

  const lab = await runProgram(program, ["lab", "explain", "--out", join(folder, "lab")]);
  expect(lab.code).toBe(1);
  expect(lab.stderr).toMatch(/^error: plots need the packages @observablehq\/plot and linkedom.*: npm install @observ/);
  expect(await readdir(folder)).not.toContain("lab");

  const [data, out] = [join(folder, "text.txt"), join(folder, "run")];
  await writeFile(data, "The cat sat on the mat, and so did the dog. ".repeat(100));
  const size = ["--layers", "1", "--width", "16", "--vocab", "260", "--context", "16", "--batch", "2"];
  const train = await runProgram(program, ["train", "--data", data, "--out", out, ...size, "--steps", "6"]);
  expect(train.stderr.match(/no loss\.svg is drawn: plots need the packages/g)?.length).toBe(1);
  expect(train).toMatchObject({ code: 0 });
  const files = await readdir(out);
  expect(files).toContain("model.safetensors");
  expect(files).not.toContain("loss.svg");
});

test("without the client of Redis, a server that is to use one says what to install", async () => {
  const program = await install(await temporaryFolder());
  const { code, stderr } = await runProgram(program, [
    "serve",
    "--threads",
    "1",
    "--state-store",
    "redis://127.0.0.1:1",
  ]);
  const worker = await runProgram(program, ["worker", "--threads", "1", "--queue", "redis://127.0.0.1:1"]);
  expect([worker.code, worker.stderr]).toEqual([
    1,
    expect.stringMatching(/^error: queues need the packages bullmq and ioredis/m),
  ]);
  expect(code).toBe(1);
  expect(stderr).toMatch(
    /^error: Redis needs the package ioredis, which is not installed with rwkv.*: npm install ioredis/m,
  );
});
