// A folder on a disk in which a server's states outlive it: prefixes/ has the second level of the cache, objects/ what clients made.

import { access, constants, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { OptionError, RwkvError } from "../../errors.js";
import type { Model } from "../../generation/model.js";
import { LocalShelf } from "../shelf.js";
import { identityOf } from "./model-identity.js";
import { ObjectDirectory } from "./object-directory.js";
import { PrefixDirectory } from "./prefix-directory.js";
import type { StateStorage } from "./state-storage.js";

/** Options of `openStateDirectory`. */
export interface StateDirectoryOptions {
  /** The bytes that the folder may take. Default 10 GiB. */
  readonly bytes?: number;
}

/**
 * Opens a folder for the states of a server, and makes it where there is none. Several models may share one, and it may be used by
 * several processes. A process that is killed leaves nothing in it that is used wrongly: files appear when they are complete, and have
 * checksums.
 *
 * @param model whose states it is for; another model's are left alone, except that the least recently used go when there are too many
 * @throws RwkvError when it cannot be used; OptionError
 */
export async function openStateDirectory(
  model: Model,
  path: string,
  { bytes = 10 * 2 ** 30 }: StateDirectoryOptions = {},
): Promise<StateStorage> {
  if (!(Number.isSafeInteger(bytes) && bytes > 0)) throw new OptionError("bytes", bytes, "a whole number above 0");
  if (typeof path !== "string" || path === "") throw new OptionError("path", path, "the path of a folder");
  const [prefixFolder, objectFolder] = [join(path, "prefixes"), join(path, "objects")];
  try {
    for (const folder of [prefixFolder, objectFolder]) {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      await access(folder, constants.R_OK | constants.W_OK | constants.X_OK);
    }
  } catch (cause) {
    throw new RwkvError(`${path}: cannot be used as a folder for states (${(cause as NodeJS.ErrnoException).code})`, {
      cause,
    });
  }
  const identity = await identityOf(model);
  const prefixes: PrefixDirectory = new PrefixDirectory(prefixFolder, model, identity, () => bytes - objects.bytes);
  const objects = new ObjectDirectory(objectFolder, model, identity, (more) => prefixes.makePlace(more));
  await objects.open();
  await prefixes.open();
  return {
    prefixes,
    // What clients made may take no more than two thirds: the cache has the rest.
    shelf: (kind, limits) =>
      new LocalShelf(kind, objects, { ...limits, bytes: Math.min(limits.bytes, Math.floor(bytes / 3)) }),
    get bytes() {
      return prefixes.bytes + objects.bytes;
    },
    async close() {
      await Promise.all([prefixes.close(), objects.close()]);
    },
  };
}
