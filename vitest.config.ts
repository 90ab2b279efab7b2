// Tests run against the build in dist/, so that what is tested is what ships, workers and WebAssembly included. Those that need
// no files of their own run a second time in Chromium, where there is one.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { playwright } from "@vitest/browser-playwright";
import { defineConfig } from "vitest/config";
import { chromiumArguments, chromiumPath, isolationHeaders } from "./test/chromium.js";

if (!chromiumPath) {
  console.warn(
    "no Chromium on this machine: tests in pages are skipped (apt-get install chromium, or name one by the variable CHROMIUM)",
  );
}

const testFiles = (...names: string[]) => names.map((name) => `test/${name}.test.ts`);
const pageTests = testFiles("kernels", "choice-kernels", "indices", "forward", "gradients", "growing-memory", "page");
const plainPageTests = testFiles("growing-memory", "page-not-isolated");
const emulatedTests = testFiles("kernels", "quantization", "pytorch-operations");

export default defineConfig({
  test: {
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Backends use threads of their own; more test files at once than cores would only make them wait for each other.
    maxWorkers: 2,
    projects: [
      {
        extends: true,
        test: {
          name: "node",
          include: ["test/**/*.test.ts"],
          exclude: ["test/page*.test.ts", "test/long/**"],
          server: { deps: { external: [/\/dist\//] } },
        },
      },
      ...(chromiumPath
        ? [
            pages("chromium", chromiumPath, pageTests, isolationHeaders),
            pages("chromium, not isolated", chromiumPath, plainPageTests, {}),
          ]
        : []),
      ...(lacksAvx512() ? [emulatedLevels()] : []),
    ],
  },
});

/** Whether this is Linux on x86 with AVX2 and without the level of instruction sets above it. */
function lacksAvx512(): boolean {
  if (process.platform !== "linux" || process.arch !== "x64") return false;
  const features = new Set(readFileSync("/proc/cpuinfo", "utf8").split(/\s+/));
  return features.has("avx2") && !features.has("avx512_vnni");
}

/** The kernels' tests once more, with AVX-512 emulated. */
function emulatedLevels() {
  const folder = fileURLToPath(new URL("test/emulation/", import.meta.url));
  const header = createHash("sha256").update(readFileSync(`${folder}avx512.h`));
  return {
    extends: true as const,
    test: {
      name: "avx512, emulated",
      include: emulatedTests,
      env: {
        CC: `${folder}cc.mjs`,
        // The cache of native libraries knows the compiler's name and the sources, not this header.
        XDG_CACHE_HOME: fileURLToPath(
          new URL(`node_modules/.cache/${header.digest("hex").slice(0, 16)}`, import.meta.url),
        ),
        TESTED_LEVELS: "avx512,avx512vnni",
      },
      server: { deps: { external: [/\/dist\//] } },
    },
  };
}

/** Tests in pages that are served with these headers. */
function pages(name: string, executablePath: string, include: string[], headers: Record<string, string>) {
  return {
    extends: true as const,
    server: { headers },
    optimizeDeps: { include: ["@huggingface/tokenizers", "fast-check"] },
    test: {
      name,
      include,
      fileParallelism: false,
      browser: {
        enabled: true,
        headless: true,
        screenshotFailures: false,
        provider: playwright({
          launchOptions: {
            executablePath,
            args: chromiumArguments,
          },
        }),
        instances: [{ browser: "chromium" as const }],
      },
    },
  };
}
