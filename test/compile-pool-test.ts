// Compiles the test of the pool of threads by itself (sanitizers/pool-test.c).

import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));

export async function compilePoolTest(program: string, flags: readonly string[]): Promise<void> {
  const sources = [path("../kernels/level.c"), path("sanitizers/pool-test.c")];
  const common = ["-std=gnu17", "-pthread", "-DLEVEL=plain", `-I${path("../kernels")}`];
  await promisify(execFile)("cc", [...common, ...flags, "-o", program, ...sources, "-lm"]);
}
