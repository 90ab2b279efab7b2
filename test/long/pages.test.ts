// The long tests in Chromium (vitest.pages.config.ts). A vitest of their own runs them while other files go on: within one run, vitest
// would begin with them only after all others, and a page keeps one core busy.

import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { chromiumPath } from "../chromium.js";
import { root } from "../emulation/other-nodes.js";

test.runIf(chromiumPath)("tests in pages pass", { timeout: 1_200_000 }, async () => {
  const vitest = [join(root, "node_modules/vitest/vitest.mjs"), "run", "--config", "vitest.pages.config.ts"];
  const run = promisify(execFile)(process.execPath, vitest, { cwd: root, maxBuffer: 2 ** 26 });
  // A failure has what they said.
  await run.catch(({ stdout, stderr }) => expect.fail(stdout + stderr));
});
