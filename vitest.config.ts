// Tests run against the build in dist/, so that what is tested is what ships, workers and WebAssembly included. Those that need
// no files of their own run a second time in Chromium, where there is one.

import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { playwright } from "@vitest/browser-playwright";
import { defineConfig } from "vitest/config";

const chromium = [
  process.env["CHROMIUM"],
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
].find((path) => path && existsSync(path));
if (!chromium) {
  console.warn(
    "no Chromium on this machine: tests in pages are skipped (apt-get install chromium, or name one by the variable CHROMIUM)",
  );
}

const pageTests = ["kernels", "choice-kernels", "forward", "gradients", "page"].map((name) => `test/${name}.test.ts`);
const emulatedTests = ["kernels", "quantization", "pytorch-operations"].map((name) => `test/${name}.test.ts`);

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
          exclude: ["test/page.test.ts"],
          server: { deps: { external: [/\/dist\//] } },
        },
      },
      ...(chromium ? [pages(chromium)] : []),
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

function pages(executablePath: string) {
  return {
    extends: true as const,
    // Only isolated pages may share memory with workers.
    server: {
      headers: { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" },
    },
    optimizeDeps: { include: ["@huggingface/tokenizers", "fast-check"] },
    test: {
      name: "chromium",
      include: pageTests,
      fileParallelism: false,
      browser: {
        enabled: true,
        headless: true,
        screenshotFailures: false,
        provider: playwright({
          launchOptions: {
            executablePath,
            args: [
              "--no-sandbox",
              "--disable-gpu",
              "--disable-quic",
              "--no-first-run",
              "--disable-background-networking",
              "--disable-component-update",
              "--disable-sync",
            ],
          },
        }),
        instances: [{ browser: "chromium" as const }],
      },
    },
  };
}
