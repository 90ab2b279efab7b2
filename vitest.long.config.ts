// Tests that take minutes: whole applications in a browser, and others that need more than the package itself. They run by
// `npm run test:long`, one file at a time, against the build in dist/.

import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    name: "long",
    include: ["test/long/*.test.ts"],
    testTimeout: 300_000,
    hookTimeout: 300_000,
    fileParallelism: false,
    server: { deps: { external: [/\/dist\//] } },
  },
});
