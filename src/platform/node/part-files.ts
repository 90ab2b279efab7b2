// The temporary files of writes: their names say which process writes, so that what a killed one has left can be told from what another is
// writing now.

import { randomBytes } from "node:crypto";
import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { hostId, isRunning } from "./processes.js";

const namePattern = /\.([0-9a-f]{8})-(\d{1,10})-[0-9a-f]{12}\.part$/;

/** How long a file may be written, in milliseconds, where its writer cannot be asked about: from its last change on. */
const partsLiveFor = 60 * 60 * 1000;

/** A new name for what this process writes before it has the name of a file. */
export function partPath(target: string): string {
  return `${target}.${hostId}-${process.pid}-${randomBytes(6).toString("hex")}.part`;
}

/**
 * Removes the temporary files of writes in a folder that will never end, since their process has: on this machine, or, as far as can
 * be told, on another that shares the folder. Those of processes that run are left alone.
 */
export async function removeAbandonedParts(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    const [, host, id] = namePattern.exec(name) ?? [];
    if (host === undefined) continue;
    const path = join(folder, name);
    const status = await stat(path).catch(() => undefined); // it may have been renamed, or removed, meanwhile
    if (!status) continue;
    const isOld = Date.now() - status.mtimeMs > partsLiveFor;
    if (isOld || (host === hostId && !isRunning(Number(id), status.mtimeMs))) await rm(path, { force: true });
  }
}
