// Tests that take minutes: whole applications in a browser, sanitizers, ends of processes, those of `npm test` that try only some of
// all combinations there (test/thorough.ts), further ones like them, kernels with instructions emulated that the processor lacks, and
// those in pages (test/long/pages.test.ts). They run by `npm run test:long`, against the build in dist/.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";
import { internals } from "./test/internals.js";
import { testFiles } from "./test/page-project.js";

/** What test/thorough.ts looks for. */
const thorough = { THOROUGH: "1" };

const thoroughTests = testFiles(
  ...["architectures", "binidx", "chains", "chat-formats", "checkpoint-writers", "dtypes", "elementwise-kernel"],
  ...[
    "generation",
    "gguf",
    "gguf-data",
    "gradients",
    "hostile-checkpoints",
    "hub-streaming",
    "kernels",
    "quantization",
  ],
  ...["reference-data", "sampling", "sparse-products", "tokenizers"],
);
/** What `npm test` leaves out since it takes long, or compiles kernels, or starts many programs. */
const furtherTests = testFiles(
  ...["choice-kernels", "eval-command", "matrix-states", "native-library", "process-endings", "pytorch-gradients"],
  ...["ranks", "train-command", "training-resume"],
);
/** The levels of instruction sets that can be emulated, what /proc/cpuinfo calls the latest that each needs, and what is tested of them. */
const emulated = [
  { levels: "avx512,avx512vnni", needs: "avx512_vnni", tests: testFiles("kernels", "sparse-products") },
  { levels: "avx512tiles", needs: "amx_int8", tests: testFiles("ggml-kernels") },
];

/** Files that take minutes begin first, or one of them would run alone at the end; those that wait beside those that compute. */
const slowestTests = testFiles(
  ...["long/pages", "long/other-machines", "long/server-queue", "long/sanitizers", "long/server"],
  ...["long/node-versions", "long/playground-models", "long/ranks", "long/bundles"],
);

class SlowestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification) => {
      const at = slowestTests.findIndex((file) => moduleId.endsWith(file));
      return at < 0 ? slowestTests.length : at;
    };
    return (await super.sort(files)).sort((a, b) => place(a) - place(b));
  }
}

export default defineConfig({
  resolve: { alias: internals },
  test: {
    testTimeout: 300_000,
    hookTimeout: 300_000,
    // What a test waits for comes, if late, on a machine that does much else, too.
    expect: { poll: { timeout: 30_000 } },
    // A third at once only made all of them slower: two cores are busy for most of the time.
    maxWorkers: 2,
    sequence: { sequencer: SlowestFirst },
    projects: [
      {
        extends: true,
        test: {
          name: "long",
          include: ["test/long/*.test.ts"],
          server: { deps: { external: [/\/dist\//] } },
        },
      },
      likeNodeTests("thorough", thoroughTests, thorough),
      likeNodeTests("further", furtherTests),
      ...emulated.filter(({ needs }) => lacks(needs)).map(emulatedLevels),
    ],
  },
});

/** Files that run as in `npm test` (vitest.config.ts), once those of test/long have. */
function likeNodeTests(name: string, include: string[], env: Record<string, string> = {}) {
  return {
    extends: true as const,
    test: {
      name,
      isolate: false,
      include,
      env,
      sequence: { groupOrder: 1 },
      server: { deps: { external: [/\/dist\//] } },
    },
  };
}

/** Whether this is Linux on x86 with AVX2 and without an instruction set of those above. */
function lacks(name: string): boolean {
  if (process.platform !== "linux" || process.arch !== "x64") return false;
  const features = new Set(readFileSync("/proc/cpuinfo", "utf8").split(/\s+/));
  return features.has("avx2") && !features.has(name);
}

/** The kernels' tests once more, with instructions emulated, and no more combinations than `npm test` tries: it is slow. */
function emulatedLevels({ levels, tests }: (typeof emulated)[number]) {
  const folder = fileURLToPath(new URL("test/emulation/", import.meta.url));
  const headers = createHash("sha256");
  for (const name of ["avx512.h", "tiles.h"]) headers.update(readFileSync(folder + name));
  return {
    extends: true as const,
    test: {
      name: `${levels}, emulated`,
      include: tests,
      sequence: { groupOrder: 1 },
      env: {
        CC: `${folder}cc.mjs`,
        RWKV_PREBUILT: "",
        // The cache of native libraries knows the compiler's name and the sources, not these headers.
        XDG_CACHE_HOME: fileURLToPath(
          new URL(`node_modules/.cache/${headers.digest("hex").slice(0, 16)}`, import.meta.url),
        ),
        TESTED_LEVELS: levels,
      },
      server: { deps: { external: [/\/dist\//] } },
    },
  };
}
