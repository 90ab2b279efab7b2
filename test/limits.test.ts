// What a process in a container may use.

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { availableParallelism, tmpdir, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { defaultThreads } from "#rwkv/platform/node/backends";
import { availableMemory, processorQuota } from "#rwkv/platform/node/limits";

const roots: string[] = [];
afterEach(async () => {
  for (const root of roots.splice(0)) await rm(root, { recursive: true, force: true });
});

/** A folder with these files, as the system's would be. */
async function system(files: Readonly<Record<string, string>>): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), "rwkv-"));
  roots.push(root);
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  }
  return root;
}

describe("the quota of processors", () => {
  const second = { "proc/self/cgroup": "0::/outer/inner\n" };
  const cases: readonly [string, Readonly<Record<string, string>>, number][] = [
    ["none where there are no control groups", {}, Number.POSITIVE_INFINITY],
    ["none by version 2", { ...second, "sys/fs/cgroup/cpu.max": "max 100000\n" }, Number.POSITIVE_INFINITY],
    ["of the group", { ...second, "sys/fs/cgroup/outer/inner/cpu.max": "150000 100000\n" }, 1.5],
    [
      "of a group above",
      {
        ...second,
        "sys/fs/cgroup/outer/inner/cpu.max": "400000 100000\n",
        "sys/fs/cgroup/outer/cpu.max": "50000 100000\n",
      },
      0.5,
    ],
    ["of a container", { "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n" }, 2],
    [
      "by version 1",
      {
        "proc/self/cgroup": "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n0::/\n",
        "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "300000\n",
        "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000\n",
      },
      3,
    ],
    [
      "by version 1, seen from inside",
      {
        "proc/self/cgroup": "4:cpu:/docker/x\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000\n",
      },
      2,
    ],
    [
      "none by version 1",
      {
        "proc/self/cgroup": "4:cpu:/\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
      },
      Number.POSITIVE_INFINITY,
    ],
    ["none in files of another form", { ...second, "sys/fs/cgroup/cpu.max": "?\n" }, Number.POSITIVE_INFINITY],
  ];
  it.each(cases)("%s", async (_, files, expected) => {
    expect(processorQuota(await system(files))).toBe(expected);
  });
});

it("asks this machine", () => {
  expect(defaultThreads()).toBeGreaterThanOrEqual(1);
  expect(defaultThreads()).toBeLessThanOrEqual(availableParallelism());
  expect(availableMemory()).toBeGreaterThan(0);
  expect(availableMemory()).toBeLessThanOrEqual(totalmem());
});
