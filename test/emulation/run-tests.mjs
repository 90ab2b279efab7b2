// Runs test files that are plain JavaScript, each given by its path: node run-tests.mjs FILE... Prints each failure and a
// summary; exits with 1 after a failure.

import { pathToFileURL } from "node:url";
import { startTests } from "@vitest/runner";

const files = process.argv.slice(2);
const counts = { pass: 0, fail: 0, skip: 0 };

function report(task, parents) {
  const name = [...parents, task.name];
  for (const error of task.result?.errors ?? []) process.stdout.write(`FAILED ${name.join(" > ")}: ${error.stack}\n`);
  if (task.type === "test") counts[task.result?.state ?? "skip"]++;
  else if (task.result?.state === "fail" && task.tasks.length === 0) counts.fail++;
  for (const child of task.tasks ?? []) report(child, name);
}

const runner = {
  config: {
    root: process.cwd(),
    setupFiles: [],
    passWithNoTests: false,
    testTimeout: 600_000,
    hookTimeout: 600_000,
    maxConcurrency: 1,
    retry: 0,
    includeTaskLocation: false,
    sequence: { hooks: "stack", setupFiles: "list", concurrent: false },
    tags: [],
    strictTags: false,
  },
  importFile: (path) => import(pathToFileURL(path).href),
};

for (const file of files) {
  const started = performance.now();
  for (const task of await startTests([{ filepath: file }], runner)) report(task, []);
  process.stdout.write(`${file}: ${((performance.now() - started) / 1000).toFixed(1)} s\n`);
}
process.stdout.write(`${counts.pass} passed, ${counts.fail} failed, ${counts.skip} skipped\n`);
process.exit(counts.fail > 0 || counts.pass === 0 ? 1 : 0);
