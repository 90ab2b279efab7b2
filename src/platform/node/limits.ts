// What a process may use of its machine: a container has less than the hardware.

import { readFileSync } from "node:fs";
import { availableParallelism, totalmem } from "node:os";
import { dirname, join } from "node:path";

/** Bytes of memory that this process can have. */
export function availableMemory(): number {
  const limit = process.constrainedMemory(); // 0, or more than there is, where there is no limit
  return limit > 0 ? Math.min(limit, totalmem()) : totalmem();
}

/** Threads that can run at a time: no more than there are processors, or than the quota of time allows; at least one. */
export function availableProcessors(): number {
  return Math.max(1, Math.floor(Math.min(availableParallelism(), processorQuota())));
}

/**
 * How many processors' time the control groups of this process (Linux; versions 1 and 2) allow it; infinite where nothing limits
 * it.
 *
 * @param root the folder that has proc/ and sys/
 */
export function processorQuota(root: string = "/"): number {
  let quota = Number.POSITIVE_INFINITY;
  for (const line of readLines(join(root, "proc/self/cgroup"))) {
    const [, controllers = "", path = "/"] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    const second = controllers === "";
    if (!second && !controllers.split(",").includes("cpu")) continue;
    const mounts = second ? ["", "unified"] : [controllers, "cpu"];
    for (const mount of mounts) {
      // A group has no more than those above it. In a container the path may be one of the host, and only the top is seen.
      for (let group = path; ; group = dirname(group)) {
        const folder = join(root, "sys/fs/cgroup", mount, group);
        quota = Math.min(quota, second ? quotaOfVersion2(folder) : quotaOfVersion1(folder));
        if (group === dirname(group)) break;
      }
    }
  }
  return quota;
}

/** "max 100000", or microseconds of processors' time and of what period. */
function quotaOfVersion2(folder: string): number {
  const [line = ""] = readLines(join(folder, "cpu.max"));
  const [time, period] = line.split(" ").map(Number);
  return ratio(time, period);
}

/** -1 where there is none. */
function quotaOfVersion1(folder: string): number {
  const [time] = readLines(join(folder, "cpu.cfs_quota_us")).map(Number);
  const [period] = readLines(join(folder, "cpu.cfs_period_us")).map(Number);
  return ratio(time, period);
}

function ratio(time: number | undefined, period: number | undefined): number {
  return time && period && time > 0 && period > 0 ? time / period : Number.POSITIVE_INFINITY;
}

function readLines(path: string): string[] {
  try {
    return readFileSync(path, "utf8").trim().split("\n");
  } catch {
    return []; // not Linux, or no such group
  }
}
