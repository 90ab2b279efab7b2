// Compiles the native kernels into the user's cache, so that the first run need not; says so where that cannot be.

import { supportedLevels } from "../dist/backends/native/native.js";

const message = await supportedLevels().then(
  (levels) => `native kernels: ${levels.join(", ")} on this processor`,
  (error) => `no native kernels: ${error.message}`,
);
process.stdout.write(`${message}\n`);
