// Threads and memory in a control group with limits, as a container has. Needs root, and groups that can be made (Linux; version
// 1 or 2).

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const mounts = "/sys/fs/cgroup";
const isSecond = existsSync(join(mounts, "cgroup.controllers"));
const limits: Readonly<Record<string, Readonly<Record<string, string>>>> = isSecond
  ? { "": { "cpu.max": "100000 100000", "memory.max": "536870912" } }
  : {
      cpu: { "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "100000" },
      memory: { "memory.limit_in_bytes": "536870912" },
    };

/** The group of this process by a controller of version 1, or by version 2. */
function ownGroup(controller: string): string {
  const lines = readFileSync("/proc/self/cgroup", "utf8").split("\n");
  const fields = lines.map((line) => line.split(":"));
  return fields.find(([, controllers = "?"]) => controllers.split(",").includes(controller))?.[2] ?? "/";
}

/** Groups with the limits; undefined where none can be made. */
function makeGroups(): string[] | undefined {
  const made: string[] = [];
  try {
    for (const [controller, files] of Object.entries(limits)) {
      const group = join(mounts, controller, ownGroup(controller), `rwkv-test-${process.pid}`);
      mkdirSync(group);
      made.push(group);
      for (const [name, text] of Object.entries(files)) writeFileSync(join(group, name), text);
    }
    return made;
  } catch {
    for (const group of made) rmdirSync(group);
    return undefined;
  }
}

test("a process in a control group keeps to its processors and memory", ({ skip }) => {
  const groups = process.platform === "linux" ? makeGroups() : undefined;
  if (!groups) return skip("no control groups can be made here: limits of containers are tested on files alone");
  const script = `
    import { writeFileSync } from "node:fs";
    for (const group of ${JSON.stringify(groups)}) writeFileSync(group + "/cgroup.procs", String(process.pid));
    const { availableMemory } = await import(new URL("platform/node/limits.js", dist));
    const { load } = await import(new URL("index.js", dist));
    const model = await load();
    console.log(model.info.threads, availableMemory());
    await model.dispose();
  `;
  try {
    const dist = `const dist = ${JSON.stringify(new URL("../../dist/", import.meta.url).href)};`;
    const args = ["--input-type=module", "-e", dist + script];
    const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
    expect(stderr).toBe("");
    expect(stdout).toBe("1 536870912\n");
  } finally {
    for (const group of groups) rmdirSync(group);
  }
});
