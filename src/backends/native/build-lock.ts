// A lock on compiling a library, so that of several processes that start at once one compiles and the others wait for it. It only saves
// work: processes that compile at once do no harm to each other. So none is waited for very long, since its compiler may hang.

import { setTimeout as after } from "node:timers/promises";
import { socketLock, type Unlock } from "../../platform/node/socket-lock.js";

export type { Unlock };

/** How long the others wait, in milliseconds. */
const longestWait = 5 * 60 * 1000;
/** Milliseconds between attempts. */
const pause = 100;

/** Takes the lock on a library, once no other process of this machine has it; or goes on without it after five minutes. */
export async function lockBuild(library: string): Promise<Unlock> {
  const deadline = Date.now() + longestWait;
  while (Date.now() < deadline) {
    const unlock = await socketLock("compile", library);
    if (unlock) return unlock;
    await after(pause);
  }
  return async () => {};
}
