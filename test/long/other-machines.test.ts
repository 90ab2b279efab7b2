// The kernels as the package ships them for other machines, by emulators of those: Linux on ARM (QEMU) and Windows (Wine). The
// embedded model gives the logits that it gives here, and the tests of kernels pass.

import { basename } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { arm, embeddedLogits, here, runThere, windows } from "../emulation/other-nodes.js";
import { plainTests } from "../emulation/plain-tests.js";
import { relativeError } from "../environment.js";

let tests: Awaited<ReturnType<typeof plainTests>>;
let expected: Record<string, number[]>;
beforeAll(async () => {
  tests = await plainTests();
  expected = await embeddedLogits(here);
});
afterAll(() => tests.remove());

/** Sums are in another order; where rows are quantized, that can put a number one step further. */
const largestError = (dtype: string) => (dtype.startsWith("q") ? 2e-2 : 1e-5);

const kernelTests = ["kernels", "choice-kernels", "indices", "conversion"];

describe.each([
  { name: "Linux on ARM", machine: arm, levels: ["neon", "dotprod"] },
  { name: "Windows on x86", machine: windows, levels: ["sse4", "avx2"] },
])("$name", ({ machine: find, levels }) => {
  const machine = find();
  if (typeof machine === "string") {
    test.skip(`cannot be run here: ${machine}`, () => {});
    return;
  }

  test("the embedded model gives the logits that it gives here", async () => {
    const found = await embeddedLogits(machine);
    const names = Object.keys(found).map((key) => key.split(" ") as [string, string]);
    expect(names.map(([level]) => level)).toEqual(expect.arrayContaining(levels));
    const reference = Object.keys(expected)[0]?.split(" ")[0];
    for (const [level, dtype] of names) {
      const error = relativeError(found[`${level} ${dtype}`]!, expected[`${reference} ${dtype}`]!);
      expect(error, `${level} ${dtype}`).toBeLessThan(largestError(dtype));
    }
  });

  // By the highest level: emulators take minutes for each, and the embedded model has gone through them all.
  test("the tests of kernels pass", { timeout: 900_000 }, async () => {
    const there = { ...machine, env: { ...machine.env, TESTED_LEVELS: levels.slice(-1).join(",") } };
    const files = kernelTests.map((name) => `${basename(tests.folder)}/${name}.test.js`);
    const { code, output } = await runThere(there, "test/emulation/run-tests.mjs", ...files);
    expect(code, output).toBe(0);
  });
});
