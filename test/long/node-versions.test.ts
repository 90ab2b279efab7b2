// The tests of Node's side, run by the newer versions of Node. Those have WebAssembly's relaxed SIMD, which version 20 has not.

import { spawnSync } from "node:child_process";
import { delimiter, dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { installNode, root } from "../emulation/other-nodes.js";

const name = process.platform === "linux" && ["x64", "arm64"].includes(process.arch) && `node-linux-${process.arch}`;

/** What depends on the engine most: WebAssembly and the addon, threads, memory, streams. */
const always = ["forward", "wasm-threads", "growing-memory", "http"];
/** And what the newest version runs, too: all kernels, building them, ends of processes. */
const further = ["kernels", "native-library", "quantization", "scheduling", "checkpoint-input", "process-endings"];

describe.each([
  { version: "22", files: always },
  { version: "24", files: ["forward", "http"] },
  { version: "26", files: [...always, ...further] },
])("Node $version", ({ version, files }) => {
  const node = name ? installNode(name, version) : undefined;
  if (!node) {
    test.skip("cannot be had here from npm", () => {});
    return;
  }

  test("takes the build with relaxed SIMD", () => {
    const compiled = new URL("../../dist/backends/wasm/compiled-kernels.js", import.meta.url).href;
    const script = `
      const { hasRelaxedSimd } = await import(${JSON.stringify(compiled)});
      console.log(hasRelaxedSimd());
    `;
    const { stdout, stderr } = spawnSync(node, ["--input-type=module", "-e", script], { encoding: "utf8" });
    expect(stderr).toBe("");
    expect(stdout).toBe("true\n");
  });

  test("passes the tests", { timeout: 900_000 }, () => {
    const vitest = join(root, "node_modules/vitest/vitest.mjs");
    const args = [
      vitest,
      "run",
      "--project",
      "node",
      "--testTimeout",
      "300000",
      ...files.map((file) => `test/${file}.test.ts`),
    ];
    const env = { ...process.env, LONGER_TESTS: "1", PATH: `${dirname(node)}${delimiter}${process.env["PATH"]}` };
    const { status, stdout, stderr } = spawnSync(node, args, { cwd: root, env, encoding: "utf8", maxBuffer: 2 ** 26 });
    expect(status, stdout + stderr).toBe(0);
  });
});
