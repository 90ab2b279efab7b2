// The libraries that were compiled on this machine, in the user's cache folder. The name of each has a stamp of what it was made
// of and a checksum of its content, so that a file that was cut off is not loaded: touching what it lacks would end the process
// by SIGBUS.

import { readdir, readFile, rm, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { crc32 } from "../../checksum.js";
import { temporaryName } from "./library-build.js";

/** The folder; it need not be there yet. */
export function cacheFolder(): string {
  return join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "rwkv");
}

/** The name of the file of a library with this content. @param name what it is, and the stamp of what it was made of */
export function cachedName(name: string, content: Uint8Array): string {
  return `${name}-${crc32(content).toString(16).padStart(8, "0")}.node`;
}

/**
 * The paths of the whole libraries with a name and stamp; damaged ones are removed. There may be several: systems that cannot load each
 * other's, such as containers with another C library, may share the folder.
 */
export async function cachedLibraries(folder: string, name: string): Promise<string[]> {
  const whole: string[] = [];
  for (const file of await readdir(folder).catch(() => [])) {
    if (!file.startsWith(`${name}-`) || !file.endsWith(".node")) continue;
    const path = join(folder, file);
    const content = await readFile(path).catch(() => new Uint8Array());
    if (cachedName(name, content) === file) whole.push(path);
    else await rm(path, { force: true }).catch(() => {});
  }
  return whole;
}

/** How long a folder of `buildLibrary` may be in use, in milliseconds: far longer than compilers are given. */
const partsLiveFor = 60 * 60 * 1000;

/** Removes what builds have left in a folder that were ended before they could; what cannot be removed stays. */
export async function sweepParts(folder: string): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) {
    if (!name.startsWith(temporaryName)) continue;
    const path = join(folder, name);
    const status = await stat(path).catch(() => undefined); // another process may sweep, too
    if (!status || Date.now() - status.mtimeMs < partsLiveFor) continue;
    await rm(path, { recursive: true, force: true }).catch(() => {});
  }
}
