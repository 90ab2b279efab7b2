// Tests run against the build in dist/, so that what is tested is what ships, workers and WebAssembly included. Those that need
// no files of their own run a second time in Chromium, where there is one.

import { defineConfig } from "vitest/config";
import { chromiumPath, isolationHeaders } from "./test/chromium.js";
import { internals } from "./test/internals.js";
import { pages, testFiles } from "./test/page-project.js";

if (!chromiumPath) {
  console.warn(
    "no Chromium on this machine: tests in pages are skipped (apt-get install chromium, or name one by the variable CHROMIUM)",
  );
}

// Those of kernels and gradients, and of WebGPU in software, take a minute more each, and run in pages with the long tests.
const pageTests = testFiles(
  ...["choice-kernels", "divided", "indices", "forward", "rwkv7", "growing-memory", "page", "page-hub"],
);
const plainPageTests = testFiles("divided", "growing-memory", "page-not-isolated");

// The long tests have these, some in more combinations; here they would take five minutes. LONGER_TESTS=1 has them here, too.
const longerTests = testFiles(
  ...[
    "architectures",
    "choice-kernels",
    "elementwise-kernel",
    "eval-command",
    "gguf-data",
    "gradients",
    "matrix-states",
  ],
  ...[
    "native-library",
    "process-endings",
    "pytorch-gradients",
    "quantization",
    "ranks",
    "sparse-products",
    "tokenizers",
  ],
  ...["train-command", "training-resume"],
);

export default defineConfig({
  resolve: { alias: internals },
  test: {
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // What a test waits for comes, if late, on a machine that does much else, too.
    expect: { poll: { timeout: 30_000 } },
    // Backends use threads of their own; more test files at once than cores would only make them wait for each other.
    maxWorkers: 2,
    setupFiles: "test/repeatable.ts",
    projects: [
      {
        extends: true,
        test: {
          name: "node",
          // Files that follow each other in a process share what they import, which saves a minute.
          isolate: false,
          include: ["test/**/*.test.ts"],
          exclude: ["test/page*.test.ts", "test/long/**", ...(process.env["LONGER_TESTS"] ? [] : longerTests)],
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
