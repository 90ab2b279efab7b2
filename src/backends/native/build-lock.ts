// A lock on compiling a library, so that of several processes that start at once one compiles and the others wait for it. It only saves
// work: processes that compile at once do no harm to each other. It is a file that says whose it is, so that one which was killed does not
// keep it; and none is waited for very long, since the holder may be on another machine or its compiler may hang.

import { randomBytes } from "node:crypto";
import { link, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import { hostId, isRunning } from "../../platform/node/processes.js";
import { temporaryName } from "./library-build.js";

/** How old a lock may be that is waited for, in milliseconds. */
const waitedFor = 5 * 60 * 1000;
/** Milliseconds between looks at a lock. */
const lookEvery = 100;

/** Gives a lock back. */
export type Unlock = () => Promise<void>;

/**
 * Takes a lock, once nobody has it whose end is worth waiting for. Where none can be had, its caller goes on without.
 *
 * @param path the file; its folder is there
 */
export async function lockBuild(path: string): Promise<Unlock> {
  const content = `${hostId} ${process.pid} ${randomBytes(8).toString("hex")}`;
  const own = nameBeside(path);
  const deadline = Date.now() + waitedFor;
  try {
    // A link appears with its content, and only where there is no file of its name.
    await writeFile(own, content, { flag: "wx" });
    while (!(await linked(own, path))) {
      if (Date.now() > deadline) return async () => {};
      const holder = await holderOf(path);
      if (holder && !isWaitedFor(holder)) await takeAway(path, holder.content);
      await after(lookEvery);
    }
  } catch {
    return async () => {};
  } finally {
    await rm(own, { force: true }).catch(() => {});
  }
  return () => takeAway(path, content);
}

/** A name of a file that is swept with those of builds, should this process be killed. */
function nameBeside(path: string): string {
  return join(dirname(path), `${temporaryName}${randomBytes(8).toString("hex")}`);
}

async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

/** Who has a lock, and since when. */
interface Holder {
  readonly content: string;
  /** Milliseconds since 1970. */
  readonly since: number;
}

async function holderOf(path: string): Promise<Holder | undefined> {
  try {
    return { content: await readFile(path, "utf8"), since: (await stat(path)).mtimeMs };
  } catch {
    return undefined; // given back meanwhile
  }
}

function isWaitedFor({ content, since }: Holder): boolean {
  if (Date.now() - since > waitedFor) return false;
  const [host, id] = content.split(" ");
  return host !== hostId || isRunning(Number(id), since);
}

/** Removes a lock if it is still the one with this content. */
async function takeAway(path: string, content: string): Promise<void> {
  const aside = nameBeside(path);
  try {
    await rename(path, aside);
    // Another process may have taken it away and put its own there.
    if ((await readFile(aside, "utf8")) !== content) await linked(aside, path);
  } catch {
    // It is gone.
  } finally {
    await rm(aside, { force: true }).catch(() => {});
  }
}
