// Compiles the test of the pool of threads by itself (sanitizers/pool-test.c), once for each way to wait. The second is what macOS
// and the BSDs have.

import { execFile } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));

const waysToWait = [
  { waiting: "futexes", defines: [] },
  { waiting: "a mutex and a condition", defines: ["-DRWKV_PORTABLE_WAITING"] },
] as const;

/** Compiles the programs into a folder; each says "ok" when it is run, or what went wrong. */
export async function compilePoolTests(
  folder: string,
  flags: readonly string[],
): Promise<{ waiting: string; program: string }[]> {
  const compile = (...args: string[]) =>
    promisify(execFile)("cc", [
      "-std=gnu17",
      "-pthread",
      "-DLEVEL=plain",
      `-I${path("../kernels")}`,
      ...flags,
      ...args,
    ]);
  const kernels = join(folder, "level.o");
  await compile("-c", "-o", kernels, path("../kernels/level.c"));
  return Promise.all(
    waysToWait.map(async ({ waiting, defines }, i) => {
      const program = join(folder, `pool-test-${i}`);
      await compile(...defines, "-o", program, path("sanitizers/pool-test.c"), kernels, "-lm");
      return { waiting, program };
    }),
  );
}
