// The kernels under sanitizers: tests that go through them with those of addresses and undefined behaviour, and the pool of
// threads by itself with that of threads, which Node cannot run under. Needs GCC.

import { execFile, spawnSync } from "node:child_process";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { supportedLevels } from "#rwkv/backends/native/native";
import { compilePoolTests } from "../compile-pool-test.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const runtime = spawnSync("gcc", ["-print-file-name=libasan.so"], { encoding: "utf8" }).stdout?.trim() ?? "";
/** A compiler that has no such library prints the bare name. */
const available = process.platform === "linux" && runtime.startsWith("/");

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rwkv-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe.runIf(available)("sanitizers", () => {
  it("find no race in the pool of threads", async () => {
    for (const { waiting, program } of await compilePoolTests(folder, ["-O1", "-g", "-fsanitize=thread"])) {
      expect(await promisify(execFile)(program), waiting).toEqual({ stdout: "ok\n", stderr: "" });
    }
  });

  it("find no fault in the kernels", { timeout: 900_000 }, async () => {
    // The library is kept from run to run: compiling it takes half a minute.
    const cache = join(root, "node_modules/.cache/sanitized");
    await mkdir(cache, { recursive: true });
    const compiler = { CC: join(root, "test/sanitizers/cc.mjs"), XDG_CACHE_HOME: cache, RWKV_PREBUILT: "" };
    // Naming the levels leaves WebAssembly out, which has walls of its own.
    const env = { ...process.env, ...compiler, TESTED_LEVELS: (await supportedLevels()).join(",") };
    // It can be loaded only where the sanitizers are there first, so this compiles it and then fails.
    await promisify(execFile)(process.execPath, ["tools/compile-native.mjs"], { cwd: root, env }).catch(() => {});
    const names = ["indices", "conversion", "choice-kernels", "kernels", "gradients", "sparse-products", "generation"];
    const tests = names.map((name) => `test/${name}.test.ts`);
    const vitest = [join(root, "node_modules/vitest/vitest.mjs"), "run", "--project", "node", ...tests];
    const options = { LD_PRELOAD: runtime, ASAN_OPTIONS: "detect_leaks=0" };
    const sanitized = { ...env, ...options, LONGER_TESTS: "1" };
    const run = promisify(execFile)(process.execPath, vitest, { cwd: root, env: sanitized, maxBuffer: 2 ** 26 });
    // A failure has what the sanitizers said.
    await run.catch(({ stdout, stderr }) => expect.fail(stdout + stderr));
  });
});
