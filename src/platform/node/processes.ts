// Whether a process that wrote something still runs, for files that processes share. Ids of processes mean something on their own machine
// only, and a container counts as one.

import { createHash } from "node:crypto";
import { hostname } from "node:os";

/** What stands for this machine in names of files: 8 hexadecimal digits. */
export const hostId = createHash("sha256").update(hostname()).digest("hex").slice(0, 8);

/**
 * Whether a process of this machine runs. One that has got the id of another since is taken for that one, except for this process itself.
 *
 * @param since when it did something, in milliseconds since 1970
 */
export function isRunning(id: number, since: number): boolean {
  // In a container that was started again, the process before this one had the same id.
  if (id === process.pid) return since >= Date.now() - process.uptime() * 1000 - clockSlack;
  try {
    process.kill(id, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"; // another user's
  }
}

/** Milliseconds by which the time of a file may lie behind the clock. */
const clockSlack = 1000;
