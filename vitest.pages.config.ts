// The long tests that run in Chromium: kernels, gradients and states in pages, and WebGPU in software. test/long/pages.test.ts runs them,
// against the build in dist/; `npx vitest run --config vitest.pages.config.ts` runs them alone.

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";
import { chromiumPath, isolationHeaders, webgpuArguments } from "./test/chromium.js";
import { internals } from "./test/internals.js";
import { pages, testFiles } from "./test/page-project.js";

if (!chromiumPath) throw new Error("no Chromium on this machine: install one, or name one by the variable CHROMIUM");

/** Where pages find the data beside the checkout, if it is there. */
const sharedData = fileURLToPath(new URL("../shared/data", import.meta.url));
const shared: Record<string, string> = existsSync(sharedData) ? { SHARED_DATA: sharedData } : {};

const kernelTests = testFiles("kernels", "gradients", "matrix-states", "sparse-products");
const webgpuTests = testFiles("page-webgpu", "page-webgpu-operations", "page-webgpu-data");

export default defineConfig({
  resolve: { alias: internals },
  test: {
    testTimeout: 300_000,
    hookTimeout: 300_000,
    // What a test waits for comes, if late, on a machine that does much else, too.
    expect: { poll: { timeout: 30_000 } },
    projects: [
      pages("chromium", chromiumPath, kernelTests, isolationHeaders),
      // In one page, so that all files share a device with the shaders that were compiled for it.
      pages("chromium, WebGPU", chromiumPath, webgpuTests, isolationHeaders, shared, webgpuArguments, false),
    ],
  },
});
