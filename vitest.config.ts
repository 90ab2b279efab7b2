// Tests run against the build in dist/, so that what is tested is what ships, workers and WebAssembly included.

import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Backends use threads of their own; more test files at once than cores would only make them wait for each other.
    maxWorkers: 2,
    server: { deps: { external: [/\/dist\//] } },
  },
});
