// Tests run against the build in dist/, so that what is tested is what ships, workers and WebAssembly included. Those that need
// no files of their own run a second time in Chromium, where there is one.

import { existsSync } from "node:fs";
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
    ],
  },
});

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
