// Tests run against the build in dist/, so that what is tested is what ships, workers and WebAssembly included. Those that need
// no files of their own run a second time in Chromium, where there is one.

import { playwright } from "@vitest/browser-playwright";
import { defineConfig } from "vitest/config";
import { chromiumArguments, chromiumPath, isolationHeaders } from "./test/chromium.js";
import { internals } from "./test/internals.js";

if (!chromiumPath) {
  console.warn(
    "no Chromium on this machine: tests in pages are skipped (apt-get install chromium, or name one by the variable CHROMIUM)",
  );
}

const testFiles = (...names: string[]) => names.map((name) => `test/${name}.test.ts`);
const pageTests = testFiles(
  "kernels",
  "choice-kernels",
  "indices",
  "forward",
  "matrix-states",
  "gradients",
  "growing-memory",
  "page",
);
const plainPageTests = testFiles("growing-memory", "page-not-isolated");

export default defineConfig({
  resolve: { alias: internals },
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
    ],
  },
});

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
